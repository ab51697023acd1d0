// linear_tanh: the launches of dz = (1 - output^2) doutput, of its column sums, and of the sum of
// pieces.
#pragma once

#include "cuda/linear_tanh/elements.cuh"
#include "cuda/linear_tanh/sizes.cuh"
#include "kernels_cuda.h"

namespace mlpkern::cuda {
namespace {

template <class T>
cudaError_t add_pieces(T* first, int64_t first_count, T* second, int64_t second_count,
                       const acc_t<T>* partial, int64_t pieces, int64_t stride, void* stream) {
  const int64_t blocks = ceil_div(first_count + second_count, kElementThreads);
  return launch<linear_tanh_pieces_kernel<T>>(blocks < 65536 ? blocks : 65536, kElementThreads, 0,
                                              stream, first, first_count, second, second_count,
                                              partial, pieces, stride);
}

// Rows of a piece of the column sums: at most 512 pieces.
int64_t slope_rows(int64_t N) { return round_up(N <= 512 * 64 ? 64 : ceil_div(N, 512), 8); }
int64_t slope_elements(int64_t N, int64_t H) { return ceil_div(N, slope_rows(N)) * H; }

// dz and dbias may be null; `partial` has slope_elements.
template <class T>
cudaError_t slope(const LinearTanhSlope& a, acc_t<T>* partial, void* stream) {
  const T* doutput = static_cast<const T*>(a.doutput);
  const T* output = static_cast<const T*>(a.output);
  T *dz = static_cast<T*>(a.dz), *dbias = static_cast<T*>(a.dbias);
  const int64_t rows = slope_rows(a.N), pieces = ceil_div(a.N, rows);
  const auto run = [&](auto items) {
    constexpr int kItems = decltype(items)::value;
    const int64_t column_blocks = ceil_div(a.H, 32 * kItems);
    return launch<linear_tanh_slope_kernel<T, kItems>>(
        pieces * column_blocks, kElementThreads, 0, stream, doutput, a.doutput_row_stride, output,
        a.output_row_stride, a.N, a.H, rows, static_cast<unsigned>(column_blocks), dz,
        dbias ? partial : nullptr);
  };
  const int items = vector_items(sizeof(T), {doutput, output, dz},
                                 {a.doutput_row_stride, a.output_row_stride, a.H});
  const cudaError_t error = items == kVectorItems<T>
                                ? run(std::integral_constant<int, kVectorItems<T>>{})
                                : run(std::integral_constant<int, 1>{});
  if (error != cudaSuccess || !dbias) return error;
  return add_pieces<T>(dbias, a.H, nullptr, 0, partial, pieces, a.H, stream);
}

}  // namespace
}  // namespace mlpkern::cuda
