// AVX-512: 32 registers of 64 bytes, masks for every load and store.
#pragma once

#include "cpu/vector/types.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Rows of a tile of gemm.h: 14 by 2 vectors are 28 accumulators, and per term 16 loads for 28 fused
// multiply-adds, so the FMA ports are the limit.
constexpr int kTileRows = 14;

// ---- halves ----

// The upper 16 bits of each lane.
MLPKERN_INLINE halves_t upper_halves(words_t words) {
  return __builtin_convertvector(words >> 16, halves_t);
}

MLPKERN_INLINE vec_t<float> widen(halves_t bits, f16*) {
  return (vec_t<float>)_mm512_cvtph_ps((__m256i)bits);
}
MLPKERN_INLINE halves_t narrow(vec_t<float> value, f16*) {
  return (halves_t)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT);
}

// ---- the first `count` lanes ----

MLPKERN_INLINE uint32_t lane_mask(int64_t count) { return (1u << count) - 1; }
MLPKERN_INLINE vec_t<float> load_lanes(const float* p, int64_t count) {
  return (vec_t<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(lane_mask(count)), p);
}
MLPKERN_INLINE vec_t<double> load_lanes(const double* p, int64_t count) {
  return (vec_t<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(lane_mask(count)), p);
}
MLPKERN_INLINE halves_t load_lanes(const uint16_t* p, int64_t count) {
  return (halves_t)_mm256_maskz_loadu_epi16(static_cast<__mmask16>(lane_mask(count)), p);
}
MLPKERN_INLINE void store_lanes(float* p, vec_t<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lane_mask(count)), (__m512)v);
}
MLPKERN_INLINE void store_lanes(double* p, vec_t<double> v, int64_t count) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(lane_mask(count)), (__m512d)v);
}
MLPKERN_INLINE void store_lanes(uint16_t* p, halves_t v, int64_t count) {
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(lane_mask(count)), (__m256i)v);
}

// ---- maximum, reductions, square root ----

MLPKERN_INLINE vec_t<float> maximum(vec_t<float> a, vec_t<float> b) {
  return (vec_t<float>)_mm512_max_ps((__m512)a, (__m512)b);
}
MLPKERN_INLINE vec_t<double> maximum(vec_t<double> a, vec_t<double> b) {
  return (vec_t<double>)_mm512_max_pd((__m512d)a, (__m512d)b);
}
MLPKERN_INLINE vec_t<float> minimum(vec_t<float> a, vec_t<float> b) {
  return (vec_t<float>)_mm512_min_ps((__m512)a, (__m512)b);
}
MLPKERN_INLINE float reduce_max(vec_t<float> v) { return _mm512_reduce_max_ps((__m512)v); }
MLPKERN_INLINE double reduce_max(vec_t<double> v) { return _mm512_reduce_max_pd((__m512d)v); }
MLPKERN_INLINE float reduce_add(vec_t<float> v) { return _mm512_reduce_add_ps((__m512)v); }
MLPKERN_INLINE double reduce_add(vec_t<double> v) { return _mm512_reduce_add_pd((__m512d)v); }
MLPKERN_INLINE vec_t<float> square_root(vec_t<float> x) {
  return (vec_t<float>)_mm512_sqrt_ps((__m512)x);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
