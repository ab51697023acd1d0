// A stable radix sort of (key, position) pairs on the device.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlpkern::cuda {

// Two buffers of keys and of positions, `count` long; the pairs begin in buffer 0 and end in buffer
// `sorted`.
template <class Word>
struct SortPairs {
  Word* keys[2];
  Word* positions[2];
  int sorted;
};

// Bytes of scratch for sort_pairs, computed without a device.
size_t sort_pairs_workspace(int64_t count);

// Sorts by the lowest `bits` bits of the keys. Returns a cudaError_t.
int sort_pairs(SortPairs<uint32_t>* pairs, int64_t count, int bits, void* workspace, void* stream);
int sort_pairs(SortPairs<uint64_t>* pairs, int64_t count, int bits, void* workspace, void* stream);

}  // namespace mlpkern::cuda
