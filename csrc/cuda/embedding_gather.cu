// embedding_gather on a GPU: output[n, t*D + d] = weight[input[n, t], d] and its gradient.
//
// forward   embedding_gather/forward.cuh: one kernel that writes the output as flat vectors.
// backward  embedding_gather/small.cuh: a table of few rows is summed in shared memory;
//           embedding_gather/sorted.cuh: for a larger one the positions are sorted by id, and
//           every team of threads sums the same number of them.
// The choice and every order of summation follow from N*T, V, D and dtype alone.
//
// Compile alone:
// nvcc -std=c++17 -arch=sm_90 -Icsrc -Xptxas -v -cubin csrc/cuda/embedding_gather.cu
#include "cuda/embedding_gather/forward.cuh"
#include "cuda/embedding_gather/small.cuh"
#include "cuda/embedding_gather/sorted.cuh"
#include "cuda/library.h"

namespace mlpkern::cuda {
namespace {

int64_t size_of(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }

template <class Index>
int gather(const Gather& g, const EmbeddingGatherForward& a, void* stream) {
  const int granule = vector_items(1, {a.weight}, {g.row_bytes, a.V > 1 ? g.weight_row_bytes : 0});
  const int store = vector_items(1, {a.output}, {});
  if (granule == 16 && store == 16) return launch_gather<Index, 16, 16>(g, stream);
  if (store == 16) {
    if (granule == 8) return launch_gather<Index, 8, 16>(g, stream);
    if (granule == 4) return launch_gather<Index, 4, 16>(g, stream);
    return launch_gather<Index, 2, 16>(g, stream);
  }
  if (granule >= 8 && store == 8) return launch_gather<Index, 8, 8>(g, stream);
  if (granule >= 4 && store >= 4) return launch_gather<Index, 4, 4>(g, stream);
  return launch_gather<Index, 2, 2>(g, stream);
}

}  // namespace

size_t embedding_gather_forward_workspace(const EmbeddingGatherForward&) { return 0; }

int embedding_gather_forward(const EmbeddingGatherForward& a, void* stream) {
  if (a.N * a.T * a.D == 0) return cudaSuccess;
  const int64_t bytes = size_of(a.dtype);
  Gather g{};
  g.ids = ids_of(a);
  g.weight = static_cast<const char*>(a.weight);
  g.output = static_cast<char*>(a.output);
  g.weight_row_bytes = a.weight_row_stride * bytes;
  g.row_bytes = a.D * bytes;
  g.count = a.N * a.T;
  return for_index_type(a.index_type, [&](auto index) {
    return gather<typename decltype(index)::type>(g, a, stream);
  });
}

size_t embedding_gather_backward_workspace(const EmbeddingGatherBackward& a) {
  if (a.N * a.T * a.D == 0) return 0;
  return table_is_small(a.V, a.D) ? small_table_workspace(a) : sorted_workspace(a);
}

int embedding_gather_backward(const EmbeddingGatherBackward& a, void* stream) {
  if (a.V * a.D == 0 && a.N * a.T * a.D == 0) return cudaSuccess;
  if (a.N * a.T == 0)
    return cudaMemsetAsync(a.dweight, 0, static_cast<size_t>(a.V * a.D * size_of(a.dtype)),
                           static_cast<cudaStream_t>(stream));
  return for_dtype(a.dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    return for_index_type(a.index_type, [&](auto index) {
      using Index = typename decltype(index)::type;
      return table_is_small(a.V, a.D) ? sum_small_table<T, Index>(a, stream)
                                      : sum_sorted<T, Index>(a, stream);
    });
  });
}

}  // namespace mlpkern::cuda
