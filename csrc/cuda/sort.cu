// CUB's radix sort behind a small function, in a file of its own because it compiles slowly.
//
// Compile alone:
// nvcc -std=c++17 -arch=sm_90 -Icsrc -Xptxas -v -cubin csrc/cuda/sort.cu
#include "cuda/sort.h"

#include <cuda_runtime.h>

#include <cub/device/device_radix_sort.cuh>

namespace mlpkern::cuda {
namespace {

template <class Word, class Count>
int sort(SortPairs<Word>* pairs, Count count, int bits, void* workspace, void* stream) {
  cub::DoubleBuffer<Word> keys(pairs->keys[0], pairs->keys[1]);
  cub::DoubleBuffer<Word> positions(pairs->positions[0], pairs->positions[1]);
  // CUB refuses a workspace that is too small before it writes anything.
  size_t bytes = sort_pairs_workspace(count);
  const cudaError_t error = cub::DeviceRadixSort::SortPairs(
      workspace, bytes, keys, positions, count, 0, bits, static_cast<cudaStream_t>(stream));
  pairs->sorted = keys.Current() == pairs->keys[0] ? 0 : 1;
  return error;
}

}  // namespace

// With double buffers, CUB's single-pass sort keeps 256 counters of 4 bytes for each tile, which
// has at least 2048 pairs on every device from sm_80 on, and for each of at most 8 passes over 2^27
// pairs or more 256 counters of 8 bytes: in all less than 3/4 byte a pair and 32 KB.
size_t sort_pairs_workspace(int64_t count) {
  return (static_cast<size_t>(count) + 63) / 64 * 64 + (64 << 10);
}

int sort_pairs(SortPairs<uint32_t>* pairs, int64_t count, int bits, void* workspace, void* stream) {
  return sort(pairs, static_cast<int>(count), bits, workspace, stream);
}

int sort_pairs(SortPairs<uint64_t>* pairs, int64_t count, int bits, void* workspace, void* stream) {
  return sort(pairs, count, bits, workspace, stream);
}

}  // namespace mlpkern::cuda
