// Fragments of mma m16n8k8 from rows of floats in shared memory, and the reuse of a result as an
// operand. With g = lane / 4 and t = lane % 4:
//
//   along    the reduction k runs along a row of the tile
//   across   each row of the tile is one k; the k of a fragment are in the order 0, 2, 4, 6, 1, 3,
//            5, 7, in which the lanes hold the columns of a result. Both operands of a product must
//            be across, or one of them a result.
#pragma once

#include "cuda/device/mma.cuh"

namespace mlpkern::cuda {

struct Lane {
  int thread = thread_anew(), warp = thread >> 5, lane = thread & 31, g = lane >> 2, t = lane & 3;
};

template <class Math>
using OperandA = typename Math::template Operand<4>;
template <class Math>
using OperandB = typename Math::template Operand<2>;

// A (16, 8) from 16 rows.
template <class Math, Values values = Values::any>
__device__ __forceinline__ OperandA<Math> a_along(const float* tile, int stride, const Lane& l) {
  const float* at = tile + l.g * stride + l.t;
  const uint32_t raw[4] = {__float_as_uint(at[0]), __float_as_uint(at[8 * stride]),
                           __float_as_uint(at[4]), __float_as_uint(at[8 * stride + 4])};
  OperandA<Math> a;
  a.template set<values>(raw);
  return a;
}

// A (16, 8) from 8 rows.
template <class Math, Values values = Values::any>
__device__ __forceinline__ OperandA<Math> a_across(const float* tile, int stride, const Lane& l) {
  const float* at = tile + 2 * l.t * stride + l.g;
  const uint32_t raw[4] = {__float_as_uint(at[0]), __float_as_uint(at[8]),
                           __float_as_uint(at[stride]), __float_as_uint(at[stride + 8])};
  OperandA<Math> a;
  a.template set<values>(raw);
  return a;
}

// A (16, 8) from the result of a product.
template <class Math, Values values = Values::any>
__device__ __forceinline__ OperandA<Math> a_of_result(const float (&d)[4]) {
  const uint32_t raw[4] = {__float_as_uint(d[0]), __float_as_uint(d[2]), __float_as_uint(d[1]),
                           __float_as_uint(d[3])};
  OperandA<Math> a;
  a.template set<values>(raw);
  return a;
}

// B (8, 8): its columns are 8 rows of the tile.
template <class Math, Values values = Values::any>
__device__ __forceinline__ OperandB<Math> b_along(const float* tile, int stride, const Lane& l) {
  const float* at = tile + l.g * stride + l.t;
  const uint32_t raw[2] = {__float_as_uint(at[0]), __float_as_uint(at[4])};
  OperandB<Math> b;
  b.template set<values>(raw);
  return b;
}

// B (8, 8): each of its k is a row of the tile.
template <class Math, Values values = Values::any>
__device__ __forceinline__ OperandB<Math> b_across(const float* tile, int stride, const Lane& l) {
  const float* at = tile + 2 * l.t * stride + l.g;
  const uint32_t raw[2] = {__float_as_uint(at[0]), __float_as_uint(at[stride])};
  OperandB<Math> b;
  b.template set<values>(raw);
  return b;
}

// Stores a result (16, 8) into rows of the tile.
__device__ __forceinline__ void store_result(float* tile, int stride, const float (&d)[4],
                                             const Lane& l) {
  float* at = tile + l.g * stride + 2 * l.t;
  *reinterpret_cast<float2*>(at) = make_float2(d[0], d[1]);
  *reinterpret_cast<float2*>(at + 8 * stride) = make_float2(d[2], d[3]);
}

}  // namespace mlpkern::cuda
