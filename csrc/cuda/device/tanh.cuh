// tanh of one value, as accurate as its type needs: float32 and float16 within about 3 units in the
// last place of float32, also near 0; bfloat16 within 2^-11, a quarter of its rounding unit.
#pragma once

#include <math.h>

#include "cuda/device/dtype.cuh"
#include "cuda/device/ptx.cuh"

namespace mlpkern::cuda {

// An odd polynomial below 0.625 (S. L. Moshier, Cephes mathematical library, tanhf), where
// 1 - 2 / (e^2|x| + 1) would cancel. Infinity becomes 1, NaN stays.
__device__ __forceinline__ float tanh_accurate(float x) {
  const float a = fabsf(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = fmaf(p, z, 2.06390887954e-2f);
  p = fmaf(p, z, -5.37397155531e-2f);
  p = fmaf(p, z, 1.33314422036e-1f);
  p = fmaf(p, z, -3.33332819422e-1f);
  const float small = fmaf(p * z, a, a);
  const float large = fmaf(-2.0f, rcp_approx(ex2_approx(a * 2.88539008f) + 1.0f), 1.0f);
  return copysignf(a < 0.625f ? small : large, x);
}

// Within 2^-22, but not relatively near 0: for results that are rounded to TF32 next.
__device__ __forceinline__ float tanh_absolute(float x) {
  return fmaf(-2.0f, rcp_approx(ex2_approx(x * 2.88539008f) + 1.0f), 1.0f);
}

template <class T>
__device__ __forceinline__ acc_t<T> tanh_of(acc_t<T> x) {
  return tanh_accurate(x);
}
template <>
__device__ __forceinline__ double tanh_of<double>(double x) {
  return tanh(x);
}
template <>
__device__ __forceinline__ float tanh_of<bf16>(float x) {
  return tanh_approx(x);
}

}  // namespace mlpkern::cuda
