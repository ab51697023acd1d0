// linear_tanh: the product of one warp's tiles in shared memory by mma.sync (arithmetic:
// device/mma.cuh).
//
// In shared memory an operand has either the reduction along its rows ("along": input and weight of
// the forward) or one row for each step of the reduction ("across").
#pragma once

#include "cuda/device/mma.cuh"

namespace mlpkern::cuda {

template <class T>
constexpr int kStep = 32 / static_cast<int>(sizeof(T));  // depth of one mma: 8 or 16

// --- Fragments as they lie in shared memory ------------------------------------------------------

// A (16, kStep): rows from `tile`, `stride` elements apart, the reduction along them.
template <class T>
__device__ __forceinline__ void load_a_along(uint32_t (&a)[4], const T* tile, int stride,
                                             int lane) {
  ldmatrix_x4(a, tile + (lane & 15) * stride + (lane >> 4) * (kStep<T> / 2));
}

// B (kStep, 8) twice: columns n and n + 8 are rows of the tile. With `pair` false the second is not
// read and b[2..3] repeat the first.
template <class T>
__device__ __forceinline__ void load_b_along(uint32_t (&b)[4], const T* tile, int stride, int lane,
                                             bool pair) {
  const int row = (lane & 7) + (pair ? (lane >> 4) * 8 : 0);
  ldmatrix_x4(b, tile + row * stride + (lane >> 3 & 1) * (kStep<T> / 2));
}

// The same fragments where each row of the tile is one step of the reduction.
template <class T>
__device__ __forceinline__ void load_a_across(uint32_t (&a)[4], const T* tile, int stride,
                                              int lane) {
  if constexpr (sizeof(T) == 4) {
    const T* at = tile + (lane & 3) * stride + (lane >> 2);
    a[0] = __float_as_uint(at[0]);
    a[1] = __float_as_uint(at[8]);
    a[2] = __float_as_uint(at[4 * stride]);
    a[3] = __float_as_uint(at[4 * stride + 8]);
  } else {
    ldmatrix_x4_transposed(a, tile + ((lane & 7) + (lane >> 4) * 8) * stride + (lane & 8));
  }
}

template <class T>
__device__ __forceinline__ void load_b_across(uint32_t (&b)[4], const T* tile, int stride, int lane,
                                              bool pair) {
  if constexpr (sizeof(T) == 4) {
    const T* at = tile + (lane & 3) * stride + (lane >> 2);
    b[0] = __float_as_uint(at[0]);
    b[1] = __float_as_uint(at[4 * stride]);
    if (pair) {
      b[2] = __float_as_uint(at[8]);
      b[3] = __float_as_uint(at[4 * stride + 8]);
    }
  } else {
    const int column = pair ? (lane >> 4) * 8 : 0;
    ldmatrix_x4_transposed(b, tile + ((lane & 7) + (lane & 8)) * stride + column);
  }
}

// --- The product of one warp ---------------------------------------------------------------------

// d (kRowTiles * 16, kColTiles * 8) += A B over `steps` of at most kSteps mma steps; the elements
// of A are `a_values`.
template <class Math, bool a_along, Values a_values, bool b_along, int row_tiles, int col_tiles,
          int slab_steps>
struct WarpProduct {
  using T = typename Math::type;

  float d[row_tiles][col_tiles][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < row_tiles; ++i)
#pragma unroll
      for (int j = 0; j < col_tiles; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) d[i][j][e] = 0.0f;
  }

  // The hardware truncates sums instead of rounding them. For the accuracy of float32, Split adds
  // the sum of a slab by an ordinary, rounded addition.
  __device__ __forceinline__ void add_slab(const T* a, int a_stride, const T* b, int b_stride,
                                           int steps, int lane) {
    if constexpr (Math::kSplit) {
      WarpProduct slab;
      slab.clear();
      slab.add(a, a_stride, b, b_stride, steps, lane);
#pragma unroll
      for (int i = 0; i < row_tiles; ++i)
#pragma unroll
        for (int j = 0; j < col_tiles; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) d[i][j][e] += slab.d[i][j][e];
    } else {
      add(a, a_stride, b, b_stride, steps, lane);
    }
  }

 private:
  __device__ __forceinline__ void add(const T* a, int a_stride, const T* b, int b_stride, int steps,
                                      int lane) {
#pragma unroll
    for (int step = 0; step < slab_steps; ++step) {
      if (step > 0 && step >= steps) break;
      add_step(a + (a_along ? 1 : a_stride) * step * kStep<T>, a_stride,
               b + (b_along ? 1 : b_stride) * step * kStep<T>, b_stride, lane);
    }
  }

  __device__ __forceinline__ void add_step(const T* a, int a_stride, const T* b, int b_stride,
                                           int lane) {
    typename Math::template Operand<4> left[row_tiles];
#pragma unroll
    for (int i = 0; i < row_tiles; ++i) {
      uint32_t raw[4];
      if constexpr (a_along)
        load_a_along(raw, a + i * 16 * a_stride, a_stride, lane);
      else
        load_a_across(raw, a + i * 16, a_stride, lane);
      left[i].template set<a_values>(raw);
    }
#pragma unroll
    for (int j = 0; j < col_tiles; j += 2) {
      const bool pair = j + 1 < col_tiles;
      uint32_t raw[4];
      if constexpr (b_along)
        load_b_along(raw, b + j * 8 * b_stride, b_stride, lane, pair);
      else
        load_b_across(raw, b + j * 8, b_stride, lane, pair);
#pragma unroll
      for (int half = 0; half < (pair ? 2 : 1); ++half) {
        typename Math::template Operand<2> right;
        right.set(raw + 2 * half);
#pragma unroll
        for (int i = 0; i < row_tiles; ++i) Math::multiply(d[i][j + half], left[i], right);
      }
    }
  }
};

}  // namespace mlpkern::cuda
