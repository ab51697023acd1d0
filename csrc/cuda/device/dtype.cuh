// The element types of a kernel: conversion to and from the accumulation type, and dispatch of a
// DType or IndexType to a template argument.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels.h"

namespace mlpkern::cuda {

using bf16 = __nv_bfloat16;
using f16 = __half;

// Accumulation type of T: double for double, else float.
template <class T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};
template <class T>
using acc_t = typename AccOf<T>::type;

__device__ __forceinline__ float to_acc(float x) { return x; }
__device__ __forceinline__ double to_acc(double x) { return x; }
__device__ __forceinline__ float to_acc(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_acc(f16 x) { return __half2float(x); }

// Rounds to nearest even.
template <class T>
__device__ __forceinline__ T from_acc(acc_t<T> x);
template <>
__device__ __forceinline__ float from_acc<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ double from_acc<double>(double x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_acc<bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ f16 from_acc<f16>(float x) {
  return __float2half_rn(x);
}

template <class T>
struct Type {
  using type = T;
};

// body(Type<T>{}) for the C++ type of `dtype`: for_dtype(d, [&](auto t) { using T = typename
// decltype(t)::type; ... }).
template <class Body>
auto for_dtype(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f64:
      return body(Type<double>{});
    case DType::bf16:
      return body(Type<bf16>{});
    case DType::f16:
      return body(Type<f16>{});
    default:
      return body(Type<float>{});
  }
}

template <class Body>
auto for_index_type(IndexType type, const Body& body) {
  switch (type) {
    case IndexType::u8:
      return body(Type<uint8_t>{});
    case IndexType::i16:
      return body(Type<int16_t>{});
    case IndexType::i32:
      return body(Type<int32_t>{});
    default:
      return body(Type<int64_t>{});
  }
}

}  // namespace mlpkern::cuda
