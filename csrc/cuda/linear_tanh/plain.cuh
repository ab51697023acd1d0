// linear_tanh in float64: the products of product.cuh by ordinary arithmetic, for gradient checks
// rather than speed. A block of 16 x 16 threads computes a tile of 32 x 32 of C,
// thread (x, y) the elements (y, x), (y, x + 16), (y + 16, x), (y + 16, x + 16).
#pragma once

#include "cuda/linear_tanh/product.cuh"

namespace mlpkern::cuda {

constexpr int kPlainTile = 32, kPlainSlab = 16, kPlainThreads = 256;

template <Kind kind>
__global__ void __launch_bounds__(kPlainThreads)
    linear_tanh_plain_kernel(Product<double> p, int64_t across, int64_t down) {
  __shared__ double a[kPlainSlab][kPlainTile + 1], b[kPlainSlab][kPlainTile + 1];
  const int thread = static_cast<int>(threadIdx.x), x = thread % 16, y = thread / 16;
  const int64_t piece = blockIdx.x / (across * down), rest = blockIdx.x % (across * down);
  const int64_t row = rest / across * kPlainTile, col = rest % across * kPlainTile;
  const int64_t begin = piece * p.piece_depth;
  const int64_t end = begin + p.piece_depth < p.depth ? begin + p.piece_depth : p.depth;

  double sum[2][2] = {};
  for (int64_t at = begin; at < end; at += kPlainSlab) {
    for (int i = thread; i < kPlainSlab * kPlainTile; i += kPlainThreads) {
      // Neighboring threads read neighboring elements: along the reduction, or across it.
      const bool along_a = kind != Kind::dweight, along_b = kind == Kind::forward;
      const int ra = along_a ? i % kPlainSlab : i / kPlainTile;
      const int ma = along_a ? i / kPlainSlab : i % kPlainTile;
      double value = 0;
      if (at + ra < end && row + ma < p.rows) {
        const int64_t n = along_a ? row + ma : at + ra, r = along_a ? at + ra : row + ma;
        value = p.a.data[n * p.a.stride + r];
        if constexpr (kind != Kind::forward) {
          const double out = p.y.data[n * p.y.stride + r];
          value *= fma(-out, out, 1.0);
        }
      }
      a[ra][ma] = value;
      const int rb = along_b ? i % kPlainSlab : i / kPlainTile;
      const int mb = along_b ? i / kPlainSlab : i % kPlainTile;
      value = 0;
      if (at + rb < end && col + mb < p.cols)
        value = along_b ? p.b.data[(col + mb) * p.b.stride + at + rb]
                        : p.b.data[(at + rb) * p.b.stride + col + mb];
      b[rb][mb] = value;
    }
    __syncthreads();
    for (int r = 0; r < kPlainSlab; ++r)
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) sum[i][j] = fma(a[r][y + 16 * i], b[r][x + 16 * j], sum[i][j]);
    __syncthreads();  // before the slab is overwritten
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int64_t r = row + y + 16 * i, c = col + x + 16 * j;
      if (r >= p.rows || c >= p.cols) continue;
      double value = sum[i][j];
      if constexpr (kind == Kind::forward) value = tanh(value + (p.bias ? p.bias[c] : 0.0));
      double* to = p.pieces == 1 ? p.output : p.partial + piece * p.partial_stride;
      to[r * p.cols + c] = value;
    }
}

template <Kind kind>
cudaError_t launch_plain(const Product<double>& p, void* stream) {
  const int64_t across = (p.cols + kPlainTile - 1) / kPlainTile;
  const int64_t down = (p.rows + kPlainTile - 1) / kPlainTile;
  return launch<linear_tanh_plain_kernel<kind>>(across * down * p.pieces, kPlainThreads, 0, stream,
                                                p, across, down);
}

}  // namespace mlpkern::cuda
