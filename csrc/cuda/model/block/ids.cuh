// The ids of a block of rows, (kBlockRows, T + 1) with the target last, fetched from global to
// shared memory in three stages: load the row number, load the id, store it. Each thread has one
// id, and the block does other work between the stages, so that no thread waits for memory. Ids
// beyond the number of threads are fetched entirely in the last stage.
#pragma once

#include "cuda/model/block/layout.cuh"

namespace mlpkern::cuda {
namespace {

class BlockIds {
 public:
  __device__ __forceinline__ explicit BlockIds(int T) : T_(T) {}

  // row_of(n) is the row of the examples that is row n < count of the block.
  template <class RowOf>
  __device__ __forceinline__ void begin(int count, const RowOf& row_of) {
    const int n = row_of_thread();
    row_ = n < count ? row_of(n) : -1;
  }
  __device__ __forceinline__ void load(const Examples& examples) {
    row_ = id_of(examples, row_, static_cast<int>(threadIdx.x) % (T_ + 1));
  }
  template <class RowOf>
  __device__ __forceinline__ void store(const Examples& examples, int count, const RowOf& row_of,
                                        int* ids) const {
    if (row_of_thread() < kBlockRows) ids[threadIdx.x] = static_cast<int>(row_);
#pragma unroll 1
    for (int i = kBlockThreads + static_cast<int>(threadIdx.x); i < kBlockRows * (T_ + 1);
         i += kBlockThreads) {
      const int n = i / (T_ + 1);
      ids[i] = id_of(examples, n < count ? row_of(n) : -1, i - n * (T_ + 1));
    }
  }

 private:
  __device__ __forceinline__ int id_of(const Examples& examples, int64_t row, int t) const {
    if (row < 0) return -1;
    return t < T_ ? load_input(examples, row, t) : load_target(examples, row);
  }
  __device__ __forceinline__ int row_of_thread() const {
    return static_cast<int>(threadIdx.x) / (T_ + 1);
  }

  const int T_;
  int64_t row_ = -1;  // of the examples, then its id
};

}  // namespace
}  // namespace mlpkern::cuda
