// Several adjacent elements at once: loads and stores of up to 128 bits, and the choice of their
// width from addresses and strides at run time.
//
// A tensor may begin at any element and its rows may lie any number of elements apart. A kernel
// either takes the widest vectors that divide every address it meets (vector_items, on the host),
// or peels each row to its first 16-byte boundary (items_to_boundary, on the device).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "cuda/device/dtype.cuh"

namespace mlpkern::cuda {

constexpr int kVectorBytes = 16;  // of the widest load and store

// Elements of T in the widest vector.
template <class T>
constexpr int kVectorItems = kVectorBytes / static_cast<int>(sizeof(T));

// Items elements in registers; Items * sizeof(T) is 2, 4, 8 or 16 bytes.
template <class T, int Items = kVectorItems<T>>
struct Vector {
  T item[Items];
};

template <int Bytes>
struct WordOf;
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned int;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};
template <class T, int Items>
using word_t = typename WordOf<Items* static_cast<int>(sizeof(T))>::type;

template <class T, int Items>
__device__ __forceinline__ Vector<T, Items> vector_of(word_t<T, Items> word) {
  Vector<T, Items> v;
  memcpy(&v, &word, sizeof v);
  return v;
}

template <class T, int Items>
__device__ __forceinline__ word_t<T, Items> word_of(const Vector<T, Items>& v) {
  word_t<T, Items> word;
  memcpy(&word, &v, sizeof v);
  return word;
}

// load_vector<4>(p): the 4 elements at p, a multiple of their size in bytes, in one load.
template <int Items, class T>
__device__ __forceinline__ Vector<T, Items> load_vector(const T* p) {
  return vector_of<T, Items>(*reinterpret_cast<const word_t<T, Items>*>(p));
}

template <int Items, class T>
__device__ __forceinline__ void store_vector(T* p, const Vector<T, Items>& v) {
  *reinterpret_cast<word_t<T, Items>*>(p) = word_of(v);
}

// The same to global memory, always in one instruction: the compiler splits a plain store into
// items and does not always merge them again.
template <int Items, class T>
__device__ __forceinline__ void store_vector_whole(T* p, const Vector<T, Items>& v) {
  __stwb(reinterpret_cast<word_t<T, Items>*>(p), word_of(v));
}

// The same for global memory that is not used again soon: evicted from the caches first.
template <int Items, class T>
__device__ __forceinline__ Vector<T, Items> load_vector_once(const T* p) {
  return vector_of<T, Items>(__ldcs(reinterpret_cast<const word_t<T, Items>*>(p)));
}

template <int Items, class T>
__device__ __forceinline__ void store_vector_once(T* p, const Vector<T, Items>& v) {
  __stcs(reinterpret_cast<word_t<T, Items>*>(p), word_of(v));
}

// x[i] = the accumulator of element i.
template <class T, int Items>
__device__ __forceinline__ void unpack(const Vector<T, Items>& v, acc_t<T> (&x)[Items]) {
  if constexpr (std::is_same_v<T, bf16> && Items > 1) {
    // A bfloat16 is the upper half of a float: one instruction each; the compiler's own conversion
    // takes two for an upper element.
#pragma unroll
    for (int i = 0; i < Items; i += 2) {
      unsigned pair;
      memcpy(&pair, &v.item[i], sizeof pair);
      const unsigned low = pair << 16, high = pair & 0xffff0000u;
      memcpy(&x[i], &low, sizeof low);
      memcpy(&x[i + 1], &high, sizeof high);
    }
  } else {
#pragma unroll
    for (int i = 0; i < Items; ++i) x[i] = to_acc(v.item[i]);
  }
}

// Two floats to two halves in one instruction; rounds to nearest even.
__device__ __forceinline__ __nv_bfloat162 pair_of(bf16, float a, float b) {
  return __floats2bfloat162_rn(a, b);
}
__device__ __forceinline__ __half2 pair_of(f16, float a, float b) {
  return __floats2half2_rn(a, b);
}

// The elements nearest to x.
template <class T, int Items>
__device__ __forceinline__ Vector<T, Items> pack(const acc_t<T> (&x)[Items]) {
  Vector<T, Items> v;
  if constexpr (sizeof(T) == 2 && Items > 1) {
#pragma unroll
    for (int i = 0; i < Items; i += 2) {
      const auto pair = pair_of(T{}, x[i], x[i + 1]);
      memcpy(&v.item[i], &pair, sizeof pair);
    }
  } else {
#pragma unroll
    for (int i = 0; i < Items; ++i) v.item[i] = from_acc<T>(x[i]);
  }
  return v;
}

// Elements from p to the next 16-byte boundary: 0 where p is on one.
template <class T>
__device__ __forceinline__ int items_to_boundary(const T* p) {
  const auto past = static_cast<unsigned>(reinterpret_cast<uintptr_t>(p) % kVectorBytes);
  return static_cast<int>((kVectorBytes - past) % kVectorBytes / sizeof(T));
}

// Whether p and q are equally far from a 16-byte boundary.
__device__ __forceinline__ bool same_phase(const void* p, const void* q) {
  return (reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(q)) % kVectorBytes == 0;
}

// The most elements of `item_bytes` a vector may have, 1 to 16 / item_bytes: a power of two that
// divides every address of `pointers` and every count of `items` (row strides and lengths in
// elements).
inline int vector_items(size_t item_bytes, std::initializer_list<const void*> pointers,
                        std::initializer_list<int64_t> items) {
  uint64_t bits = kVectorBytes;
  for (const void* p : pointers) bits |= reinterpret_cast<uintptr_t>(p);
  for (int64_t n : items) bits |= static_cast<uint64_t>(n) * item_bytes;
  const uint64_t bytes = bits & (~bits + 1);  // the lowest bit set
  return bytes < item_bytes ? 1 : static_cast<int>(bytes / item_bytes);
}

}  // namespace mlpkern::cuda
