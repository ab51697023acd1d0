// linear_tanh: the epilogue of a product, from the registers of its warps to global memory, with
// bias and tanh in the forward; and dbias from the columns of dz.
#pragma once

#include "cuda/device/launch.cuh"
#include "cuda/device/tanh.cuh"
#include "cuda/linear_tanh/shape.cuh"

namespace mlpkern::cuda {

// The sum in float32 where an infinite operand has made Split NaN: inf * small is NaN if small is
// 0.
template <Kind kind, class T>
__device__ __forceinline__ float exact_sum(const Product<T>& p, int64_t row, int64_t col,
                                           int64_t at, int64_t end) {
  float sum = 0;
#pragma unroll 1
  for (int64_t i = at; i < end; ++i) {
    const int64_t n = kind == Kind::dweight ? i : row, r = kind == Kind::dweight ? row : i;
    float a = p.a.data[n * p.a.stride + r];
    if constexpr (kind != Kind::forward) {
      const float y = p.y.data[n * p.y.stride + r];
      a *= fmaf(-y, y, 1.0f);
    }
    const float b =
        kind == Kind::forward ? p.b.data[col * p.b.stride + i] : p.b.data[i * p.b.stride + col];
    sum = fmaf(a, b, sum);
  }
  return sum;
}

// One or both of two adjacent elements.
template <class U>
__device__ __forceinline__ void store_pair(U* to, float first, float second, bool both,
                                           bool aligned) {
  const float pair[2] = {first, second};
  if (both && aligned) {
    store_vector(to, pack<U>(pair));
  } else {
    to[0] = from_acc<U>(first);
    if (both) to[1] = from_acc<U>(second);
  }
}

// Writes the warp's part of a tile; (row, col) is the position of the lane's first element.
template <class Shape, Kind kind, bool repair, class U, class T>
__device__ __forceinline__ void store_tile(U* output, const Product<T>& p,
                                           typename Shape::Warp& warp, int64_t row, int64_t col,
                                           int64_t begin, int64_t end) {
  const bool aligned =
      p.cols % 2 == 0 && reinterpret_cast<uintptr_t>(output) % (2 * sizeof(U)) == 0;
  bool nan = false;
#pragma unroll
  for (int j = 0; j < Shape::kColTiles; ++j) {
    const int64_t c = col + j * 8;
    if (c >= p.cols) break;
    const bool both = c + 1 < p.cols;
    float bias[2] = {0, 0};
    if constexpr (kind == Kind::forward) {
      if (p.bias) {
        bias[0] = to_acc(p.bias[c]);
        if (both) bias[1] = to_acc(p.bias[c + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < Shape::kRowTiles; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t r = row + i * 16 + half * 8;
        if (r >= p.rows) continue;
        float first = warp.d[i][j][2 * half], second = warp.d[i][j][2 * half + 1];
        nan |= isnan(first) || isnan(second);
        if constexpr (kind == Kind::forward) {
          first = tanh_of<T>(first + bias[0]);
          second = tanh_of<T>(second + bias[1]);
        }
        store_pair(output + r * p.cols + c, first, second, both, aligned);
      }
  }
  if constexpr (repair) {
    if (!nan) return;
#pragma unroll 1
    for (int e = 0; e < Shape::kRowTiles * Shape::kColTiles * 4; ++e) {
      const int64_t r = row + e / 2 % 2 * 8 + e / 4 % Shape::kRowTiles * 16;
      const int64_t c = col + e % 2 + e / (4 * Shape::kRowTiles) * 8;
      if (r >= p.rows || c >= p.cols || !isnan(output[r * p.cols + c])) continue;
      const float sum = exact_sum<kind>(p, r, c, begin, end);
      if constexpr (kind == Kind::forward)
        output[r * p.cols + c] = tanh_of<T>(sum + (p.bias ? p.bias[c] : 0.0f));
      else
        output[r * p.cols + c] = sum;
    }
  }
}

// dbias for the rows of one tile of C, from the column sums of dz that the threads hold.
template <class Shape, class Tile, class T>
__device__ __forceinline__ void store_dbias(float* shared, const Product<T>& p, int64_t row,
                                            float* partial, const float (&sums)[kChunk<T>]) {
  const int thread = static_cast<int>(threadIdx.x);
  const int slot = thread / Shape::A::kRowChunks, chunk = thread % Shape::A::kRowChunks;
#pragma unroll
  for (int j = 0; j < kChunk<T>; ++j) shared[slot * Tile::kRows + chunk * kChunk<T> + j] = sums[j];
  __syncthreads();
  const auto for_sums = [&](const auto& body) {
    for (int h = thread; h < Tile::kRows && row + h < p.rows; h += Tile::kThreads) {
      float sum = shared[h];
      for (int i = 1; i < Shape::kSumThreads; ++i) sum += shared[i * Tile::kRows + h];
      body(row + h, sum);
    }
  };
  if (p.pieces == 1)
    for_sums([&](int64_t h, float sum) { p.dbias[h] = from_acc<T>(sum); });
  else
    for_sums([&](int64_t h, float sum) { partial[h] = sum; });
}

}  // namespace mlpkern::cuda
