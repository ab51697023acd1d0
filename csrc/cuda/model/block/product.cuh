// Products of matrices in the shared memory of a block, by tiles of one warp.
// device/mma_fragments.cuh describes the layout of operands; depths are multiples of 16.
#pragma once

#include "cuda/device/mma_fragments.cuh"

namespace mlpkern::cuda {

// Depth that is summed by mma alone, which truncates sums; additions of these sums are rounded.
constexpr int kSlabDepth = 32;

// A (16, 8) along the rows of the tile, k in the order of operands across. With a row stride that
// suits the other fragments, its lanes have two-way bank conflicts.
template <class Math>
__device__ __forceinline__ OperandA<Math> a_along_paired(const float* tile, int stride,
                                                         const Lane& l) {
  const float* at = tile + l.g * stride + 2 * l.t;
  const float2 upper = *reinterpret_cast<const float2*>(at);
  const float2 lower = *reinterpret_cast<const float2*>(at + 8 * stride);
  const uint32_t raw[4] = {__float_as_uint(upper.x), __float_as_uint(lower.x),
                           __float_as_uint(upper.y), __float_as_uint(lower.y)};
  OperandA<Math> a;
  a.set(raw);
  return a;
}

// d + rest += a b. Truncation by mma matters only in d, to which Split adds one of its three
// products; the other two are small.
template <class Math>
__device__ __forceinline__ void multiply_apart(float (&d)[4], float (&rest)[4],
                                               const OperandA<Math>& a, const OperandB<Math>& b) {
  if constexpr (Math::kSplit) {
    mma_tf32(rest, a.small, b.big);
    mma_tf32(rest, a.big, b.small);
    mma_tf32(d, a.big, b.big);
  } else {
    Math::multiply(d, a, b);
  }
}

// d (16 rows, 8 cols) += a (16 rows, depth) b, both at k = 0. With `across`, each row of b is one
// k; else each row of b is one column of d.
template <class Math, bool across, int rows, int cols>
__device__ __forceinline__ void add_product(float (&d)[rows][cols][4], const float* a, int a_stride,
                                            const float* b, int b_stride, int depth,
                                            const Lane& l) {
#pragma unroll 1
  for (int k = 0; k < depth; k += kSlabDepth) {
    float slab[rows][cols][4] = {}, rest[rows][cols][4] = {};
    const int end = min(k + kSlabDepth, depth);
#pragma unroll 1  // more loads at once would take more registers than there are
    for (int pair = k; pair < end; pair += 16)
#pragma unroll
      for (int step = pair; step < pair + 16; step += 8) {
        OperandA<Math> left[rows];
#pragma unroll
        for (int i = 0; i < rows; ++i) {
          const float* tile = a + 16 * i * a_stride + step;
          left[i] =
              across ? a_along_paired<Math>(tile, a_stride, l) : a_along<Math>(tile, a_stride, l);
        }
#pragma unroll
        for (int j = 0; j < cols; ++j) {
          const OperandB<Math> right =
              across ? b_across<Math>(b + step * b_stride + 8 * j, b_stride, l)
                     : b_along<Math>(b + 8 * j * b_stride + step, b_stride, l);
#pragma unroll
          for (int i = 0; i < rows; ++i)
            multiply_apart<Math>(slab[i][j], rest[i][j], left[i], right);
        }
      }
#pragma unroll
    for (int i = 0; i < rows; ++i)
#pragma unroll
      for (int j = 0; j < cols; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) d[i][j][e] += slab[i][j][e] + rest[i][j][e];
  }
}

// Part `part` of `parts` of a depth.
struct DepthPart {
  int begin, depth;
  __device__ __forceinline__ DepthPart(int whole, int part, int parts) {
    const int sixteens = whole / 16;
    begin = 16 * (sixteens * part / parts);
    depth = 16 * (sixteens * (part + 1) / parts) - begin;
  }
};

}  // namespace mlpkern::cuda
