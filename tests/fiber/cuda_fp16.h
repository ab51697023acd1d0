// Twin of CUDA's header of this name: the type and its conversions, no arithmetic on it.
#pragma once

#include "cuda_runtime.h"
#include "fiber/builtins/narrow_float.h"

struct __half {
  uint16_t bits;

  __half() = default;
  __half(float x) : bits(mlpkern::fiber::f16_from_float(x)) {}
  explicit __half(double x) : __half(static_cast<float>(x)) {}
  operator float() const { return mlpkern::fiber::f16_to_float(bits); }
};

struct alignas(4) __half2 {
  __half x, y;
};

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
inline __half __low2half(__half2 v) { return v.x; }
inline __half __high2half(__half2 v) { return v.y; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) {
  __half x;
  x.bits = bits;
  return x;
}

// The larger numbers; NaN only where both are NaN.
inline __half2 __hmax2(__half2 a, __half2 b) {
  return {__half(std::fmax(float{a.x}, float{b.x})), __half(std::fmax(float{a.y}, float{b.y}))};
}

using half = __half;
using half2 = __half2;
