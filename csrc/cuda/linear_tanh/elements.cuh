// linear_tanh: the elementwise kernels around the products.
//
//   pieces    dweight and dbias = sums over pieces of the batch, added in order of the pieces
//   slope     dz = (1 - output^2) doutput and its column sums over pieces of the rows, or only one
//   epilogue  output = tanh(output + bias), in place
//
// In slope and epilogue a warp holds 32 adjacent vectors of a row, and the eight warps of a block
// take every eighth row, so that a thread keeps its columns.
#pragma once

#include "cuda/device/launch.cuh"
#include "cuda/device/tanh.cuh"
#include "cuda/device/vector.cuh"

namespace mlpkern::cuda {

constexpr int kElementThreads = 256, kElementRows = kElementThreads / 32;

// first[i], i < first_count, then second[...] = sum over pieces of partial[piece * stride + i].
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    linear_tanh_pieces_kernel(T* first, int64_t first_count, T* second, int64_t second_count,
                              const acc_t<T>* partial, int64_t pieces, int64_t stride) {
  const int64_t step = int64_t{kElementThreads} * gridDim.x;
  for (int64_t i = int64_t{kElementThreads} * blockIdx.x + threadIdx.x;
       i < first_count + second_count; i += step) {
    acc_t<T> sum = 0;
#pragma unroll 8
    for (int64_t piece = 0; piece < pieces; ++piece) sum += partial[piece * stride + i];
    *(i < first_count ? first + i : second + (i - first_count)) = from_acc<T>(sum);
  }
}

// Block b: piece b / column_blocks of the rows, the vectors of columns from b % column_blocks * 32.
// dz or partial may be null.
template <class T, int items>
__global__ void __launch_bounds__(kElementThreads)
    linear_tanh_slope_kernel(const T* doutput, int64_t doutput_stride, const T* output,
                             int64_t output_stride, int64_t N, int64_t H, int64_t piece_rows,
                             unsigned column_blocks, T* dz, acc_t<T>* partial) {
  using A = acc_t<T>;
  __shared__ A shared[kElementRows][32][items];
  const int lane = static_cast<int>(threadIdx.x % 32), slot = static_cast<int>(threadIdx.x / 32);
  const int64_t piece = blockIdx.x / column_blocks;
  const int64_t h = (int64_t{blockIdx.x % column_blocks} * 32 + lane) * items;
  const int64_t end = (piece + 1) * piece_rows < N ? (piece + 1) * piece_rows : N;
  A sums[items] = {};
  T* to = dz ? dz + (piece * piece_rows + slot) * H + h : nullptr;
  if (h < H) {
#pragma unroll 4
    for (int64_t n = piece * piece_rows + slot; n < end; n += kElementRows) {
      A d[items], y[items];
      unpack(load_vector_once<items>(doutput + n * doutput_stride + h), d);
      unpack(load_vector_once<items>(output + n * output_stride + h), y);
#pragma unroll
      for (int i = 0; i < items; ++i) {
        d[i] *= fma(-y[i], y[i], A{1});
        sums[i] += d[i];
      }
      if (to) {  // a running pointer: with to[n * H + h] nvcc stores single elements
        store_vector(to, pack<T>(d));
        to += kElementRows * H;
      }
    }
  }
  if (!partial) return;
#pragma unroll
  for (int i = 0; i < items; ++i) shared[slot][lane][i] = sums[i];
  __syncthreads();
  if (slot > 0 || h >= H) return;
#pragma unroll
  for (int i = 0; i < items; ++i) {
    A sum = sums[i];
    for (int s = 1; s < kElementRows; ++s) sum += shared[s][lane][i];
    partial[piece * H + h + i] = sum;
  }
}

template <class T, int items>
__global__ void __launch_bounds__(kElementThreads)
    linear_tanh_epilogue_kernel(T* output, const T* bias, int64_t N, int64_t H, int64_t row_blocks,
                                unsigned column_blocks) {
  using A = acc_t<T>;
  const int lane = static_cast<int>(threadIdx.x % 32), slot = static_cast<int>(threadIdx.x / 32);
  const int64_t h = (int64_t{blockIdx.x % column_blocks} * 32 + lane) * items;
  if (h >= H) return;
  A add[items];
#pragma unroll
  for (int i = 0; i < items; ++i) add[i] = bias ? to_acc(bias[h + i]) : A{0};
#pragma unroll 4
  for (int64_t n = blockIdx.x / column_blocks * int64_t{kElementRows} + slot; n < N;
       n += row_blocks * kElementRows) {
    A z[items];
    unpack(load_vector<items>(output + n * H + h), z);
#pragma unroll
    for (int i = 0; i < items; ++i) z[i] = tanh_of<T>(z[i] + add[i]);
    store_vector(output + n * H + h, pack<T>(z));
  }
}

}  // namespace mlpkern::cuda
