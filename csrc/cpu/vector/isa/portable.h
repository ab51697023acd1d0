// Any other CPU (SSE2 on x86): vectors of 16 bytes by the compiler's vector extensions alone.
#pragma once

#include <cmath>

#include "cpu/vector/types.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int kTileRows = 4;  // of a tile of gemm.h

// ---- halves ----

// The upper 16 bits of each lane.
MLPKERN_INLINE halves_t upper_halves(words_t words) {
  return __builtin_convertvector(words >> 16, halves_t);
}

MLPKERN_INLINE vec_t<float> widen(halves_t bits, f16*) {
  const words_t h = __builtin_convertvector(bits, words_t);
  const words_t sign = (h & 0x8000) << 16, magnitude = h & 0x7fff;
  const words_t normal = (magnitude << 13) + (112u << 23);  // rebiases the exponent
  const words_t special = (magnitude << 13) | 0x7f800000;   // infinity and NaN
  const words_t subnormal = (words_t)(__builtin_convertvector(magnitude, vec_t<float>) * 0x1p-24f);
  words_t result = magnitude < 0x400 ? subnormal : normal;
  result = magnitude >= 0x7c00 ? special : result;
  return (vec_t<float>)(result | sign);
}

MLPKERN_INLINE halves_t narrow(vec_t<float> value, f16*) {
  const words_t bits = (words_t)value, sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  const words_t rebiased = magnitude - (112u << 23);
  const words_t normal = (rebiased + 0xfff + ((rebiased >> 13) & 1)) >> 13;
  // Below 2^-14, adding 0.5 leaves the rounded bits of the subnormal in the low bits.
  const words_t subnormal = (words_t)((vec_t<float>)magnitude + 0.5f) - 0x3f000000u;
  const words_t big = magnitude > 0x7f800000 ? words_t{} + 0x7e00 : words_t{} + 0x7c00;
  words_t result = magnitude < (113u << 23) ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? big : result;  // 65520 and up rounds to infinity
  return __builtin_convertvector(result | sign, halves_t);
}

// ---- the first `count` lanes ----

template <class V, class T>
MLPKERN_INLINE V gather_lanes(const T* p, int64_t count) {
  V v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = p[i];
  return v;
}
MLPKERN_INLINE vec_t<float> load_lanes(const float* p, int64_t count) {
  return gather_lanes<vec_t<float>>(p, count);
}
MLPKERN_INLINE vec_t<double> load_lanes(const double* p, int64_t count) {
  return gather_lanes<vec_t<double>>(p, count);
}
MLPKERN_INLINE halves_t load_lanes(const uint16_t* p, int64_t count) {
  return gather_lanes<halves_t>(p, count);
}
template <class V, class T>
MLPKERN_INLINE void store_lanes(T* p, V v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}

// ---- maximum, reductions, square root ----

template <class V>
MLPKERN_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}
MLPKERN_INLINE vec_t<float> minimum(vec_t<float> a, vec_t<float> b) { return a < b ? a : b; }

template <class V>
MLPKERN_INLINE auto reduce_max(V v) {
  auto result = v[0];
  for (size_t i = 1; i < sizeof v / sizeof v[0]; ++i) result = result > v[i] ? result : v[i];
  return result;
}
template <class V>
MLPKERN_INLINE auto reduce_add(V v) {
  for (size_t width = sizeof v / sizeof v[0] / 2; width > 0; width /= 2)
    for (size_t i = 0; i < width; ++i) v[i] += v[i + width];
  return v[0];
}
MLPKERN_INLINE vec_t<float> square_root(vec_t<float> x) {
  for (int64_t i = 0; i < kLanes<float>; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
