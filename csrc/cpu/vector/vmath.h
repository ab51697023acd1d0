// exp, log and tanh on whole vectors. float32: tanh within 1.7 units in the last place, exp and log
// within 2 (tests/cpp/ops/test_accuracy.cpp); float64: the C library, lane by lane, as it serves
// gradient checks, not speed. Polynomials outside AVX-512: S. L. Moshier, Cephes mathematical
// library (expf, logf, tanhf).
#pragma once

#include <cmath>

#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

#if defined(__AVX512F__)
#include "cpu/vector/tanh_table.h"
#endif

using vecf = vec_t<float>;
using vecd = vec_t<double>;
using intf = ints_t<float>;

#if defined(__AVX512F__)

// e^x for x <= 88, 0 below the smallest subnormal, NaN for NaN. With x = n log(2) / 16 + r this is
// 2^floor(n / 16) * 2^(n mod 16 / 16) * e^r: the middle factor from a table, e^r by a cubic.
MLPKERN_INLINE vecf exp_nonpositive(vecf x) {
  alignas(64) static constexpr float kPowers[16] = {
      // 2^(i / 16)
      1.0f,        1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f,
      1.29683959f, 1.35425556f, 1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f,
      1.68179286f, 1.75625217f, 1.8340081f,  1.91520655f};
  const vecf shifter = splat(786432.0f);  // 1.5 * 2^19: adding it rounds to a multiple of 1 / 16
  const vecf clamped = maximum(splat(-104.0f), x);
  const vecf shifted = clamped * 1.44269504088896341f + shifter;
  const vecf n = shifted - shifter;
  const vecf r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  const vecf power = (vecf)_mm512_permutexvar_ps((__m512i)shifted, _mm512_load_ps(kPowers));
  const vecf e = ((r * 0.166666667f + 0.5f) * r + 1.0f) * r;
  return (vecf)_mm512_scalef_ps((__m512)(power * e + power), (__m512)n);
}

#else

// e^x for x <= 88, 0 below the smallest normal, NaN for NaN.
MLPKERN_INLINE vecf exp_nonpositive(vecf x) {
  const vecf shifter = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const vecf clamped = maximum(splat(-104.0f), x);
  const vecf shifted = clamped * 1.44269504088896341f + shifter;
  const vecf n = shifted - shifter;
  vecf r = clamped - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vecf p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  const intf exponent = ((intf)shifted) << 23;  // the low bits of `shifted` hold n
  const vecf scaled = (vecf)((intf)p + exponent);
  const intf tiny = x < -87.3365447f;
  return (vecf)((intf)scaled & ~tiny);
}

#endif

MLPKERN_INLINE vecd exp_nonpositive(vecd x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

// log(x) for x in [1, inf]; NaN for NaN.
MLPKERN_INLINE vecf log_of_sum(vecf x) {
  const intf bits = (intf)x;
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2))
  const intf offset = bits - 0x3f3504f3;
  const intf e = offset >> 23;
  const vecf m = (vecf)((offset & 0x007fffff) + 0x3f3504f3);
  const vecf f = m - 1.0f, z = f * f, exponent = __builtin_convertvector(e, vecf);
  vecf p = splat(7.0376836292e-2f);
  p = p * f + -1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f + -1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f + -1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f + -2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  vecf y = p * z * f + exponent * -2.12194440e-4f;
  y = y - z * 0.5f;
  const vecf result = (f + y) + exponent * 0.693359375f;
  const vecf passed = x + x;  // NaN and infinity
  return x < 3.4028235e38f ? result : passed;
}

MLPKERN_INLINE vecd log_of_sum(vecd x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = std::log(x[i]);
  return x;
}

#if defined(__AVX512F__)

// tanh(x): 32 polynomials whose coefficients come from table permutes; 18 instructions, no
// division. NaN for NaN, keeps the sign of zero. tanh rounds to 1 from 9.01 on.
MLPKERN_INLINE vecf tanh(vecf x) {
  const intf sign_bit = intf{} + static_cast<int32_t>(0x80000000u);
  const vecf a = minimum(splat(kTanhLast), (vecf)((intf)x & ~sign_bit));
  const __m512i piece = (__m512i)(a * kTanhStepsPerUnit + 12582912.0f);  // its low 5 bits
  const auto pick = [&](const float* row) {
    return (vecf)_mm512_permutex2var_ps(_mm512_load_ps(row), piece, _mm512_load_ps(row + 16));
  };
  const vecf t = a - pick(kTanhCenter);
  vecf p = pick(kTanhCoefficient[kTanhDegree]);
#pragma GCC unroll 8
  for (int k = kTanhDegree - 1; k >= 0; --k) p = p * t + pick(kTanhCoefficient[k]);
  return (vecf)((intf)p | ((intf)x & sign_bit));
}

#else

// tanh(x): an odd polynomial below 0.625, 1 - 2 / (e^2|x| + 1) above; NaN for NaN.
MLPKERN_INLINE vecf tanh(vecf x) {
  const intf sign_bit = intf{} + static_cast<int32_t>(0x80000000u);
  const vecf a = (vecf)((intf)x & ~sign_bit);
  const vecf z = x * x;
  vecf p = splat(-5.70498872745e-3f);
  p = p * z + 2.06390887954e-2f;
  p = p * z + -5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z + -3.33332819422e-1f;
  const vecf small = p * z * a + a;

  // e^2a = 2^n e^2r with r = a - n log(2) / 2; tanh rounds to 1 from 9.01 on.
  const vecf shifter = splat(12582912.0f);
  const vecf b = minimum(splat(9.1f), a);
  const vecf shifted = b * 2.88539008177792682f + shifter;
  const vecf n = shifted - shifter;
  const vecf r = (b - n * 0.3466796875f) - n * -1.06097221e-4f;
  vecf e = splat(1.9875691500e-4f * 128);
  e = e * r + 1.3981999507e-3f * 64;
  e = e * r + 8.3334519073e-3f * 32;
  e = e * r + 4.1665795894e-2f * 16;
  e = e * r + 1.6666665459e-1f * 8;
  e = e * r + 5.0000001201e-1f * 4;
  e = e * (r * r) + (r * 2.0f + 1.0f);
  const vecf exp_2a = (vecf)((intf)e + (((intf)shifted) << 23));
  const vecf large = 1.0f - 2.0f / (exp_2a + 1.0f);
  const vecf magnitude = a < 0.625f ? small : large;
  return (vecf)((intf)magnitude | ((intf)x & sign_bit));
}

#endif

MLPKERN_INLINE vecd tanh(vecd x) {
  for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = std::tanh(x[i]);
  return x;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
