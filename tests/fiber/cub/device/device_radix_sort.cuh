// Twin of the part of CUB that csrc/cuda uses: the same calls, on one thread. Fills temporary
// storage and buffers that the sort may overwrite with 0xFF.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

namespace cub {

// Two buffers, one of which holds the data; a sort may return it in the other.
template <class T>
struct DoubleBuffer {
  T* d_buffers[2] = {nullptr, nullptr};
  int selector = 0;

  DoubleBuffer() = default;
  DoubleBuffer(T* current, T* alternate) : d_buffers{current, alternate} {}
  T* Current() { return d_buffers[selector]; }
  T* Alternate() { return d_buffers[selector ^ 1]; }
};

struct DeviceRadixSort {
  // Stable, by the bits first ... end-1 of the keys. Without storage: returns the required size.
  template <class Key, class Value, class Count>
  static cudaError_t SortPairs(void* storage, size_t& bytes, DoubleBuffer<Key>& keys,
                               DoubleBuffer<Value>& values, Count count, int first = 0,
                               int end = 8 * sizeof(Key), cudaStream_t = nullptr) {
    static_assert(std::is_unsigned_v<Key>);
    constexpr size_t needed = 1024;  // any number does
    if (!storage) return bytes = needed, cudaSuccess;
    if (bytes < needed) return cudaErrorInvalidValue;
    std::memset(storage, 0xFF, bytes);

    constexpr int width = 8 * sizeof(Key);
    const auto digits = [&](Key key) {
      if (end < width) key &= (Key{1} << end) - 1;
      return first < width ? static_cast<Key>(key >> first) : Key{0};
    };
    const auto n = static_cast<size_t>(count);
    std::vector<Key> old_keys(keys.Current(), keys.Current() + n);
    std::vector<Value> old_values(values.Current(), values.Current() + n);
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return digits(old_keys[a]) < digits(old_keys[b]); });

    if ((end - first + 7) / 8 % 2) keys.selector ^= 1, values.selector ^= 1;  // 8 bits a pass
    std::fill_n(reinterpret_cast<unsigned char*>(keys.Alternate()), n * sizeof(Key), 0xFF);
    std::fill_n(reinterpret_cast<unsigned char*>(values.Alternate()), n * sizeof(Value), 0xFF);
    for (size_t i = 0; i < n; ++i) {
      keys.Current()[i] = old_keys[order[i]];
      values.Current()[i] = old_values[order[i]];
    }
    return cudaSuccess;
  }
};

}  // namespace cub
