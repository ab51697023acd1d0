// AVX2 with FMA and F16C: 16 registers of 32 bytes. Loads of 32- and 64-bit lanes have masks;
// masked stores take tens of cycles on AMD, so parts are stored in halves of halves.
#pragma once

#include "cpu/vector/types.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Rows of a tile of gemm.h: 6 by 2 vectors are 12 accumulators, which leave 4 registers for two
// columns and a broadcast.
constexpr int kTileRows = 6;

// ---- halves ----

// The upper 16 bits of each lane.
MLPKERN_INLINE halves_t upper_halves(words_t words) {
  const __m256i low = _mm256_srli_epi32((__m256i)words, 16);
  const __m256i packed = _mm256_packus_epi32(low, low);  // in each half of the register
  return (halves_t)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}

MLPKERN_INLINE vec_t<float> widen(halves_t bits, f16*) {
  return (vec_t<float>)_mm256_cvtph_ps((__m128i)bits);
}
MLPKERN_INLINE halves_t narrow(vec_t<float> value, f16*) {
  return (halves_t)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
}

// ---- the first `count` lanes ----

// All bits are set in the first `count` lanes: a window into ones that zeros follow.
alignas(64) constexpr int32_t kLaneBits[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
MLPKERN_INLINE __m256i lane_mask_32(int64_t count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLaneBits + 8 - count));
}
MLPKERN_INLINE __m256i lane_mask_64(int64_t count) { return lane_mask_32(2 * count); }

MLPKERN_INLINE vec_t<float> load_lanes(const float* p, int64_t count) {
  return (vec_t<float>)_mm256_maskload_ps(p, lane_mask_32(count));
}
MLPKERN_INLINE vec_t<double> load_lanes(const double* p, int64_t count) {
  return (vec_t<double>)_mm256_maskload_pd(p, lane_mask_64(count));
}
MLPKERN_INLINE halves_t load_lanes(const uint16_t* p, int64_t count) {
  const auto load_three = [](const uint16_t* from, int64_t n) {  // n <= 3
    uint32_t pair = 0;
    uint64_t last = 0;
    if (n & 2) __builtin_memcpy(&pair, from, 4), from += 2;
    if (n & 1) last = *from;
    return pair | last << (n & 2 ? 32 : 0);
  };
  uint64_t words[2] = {};
  if (count & 8) return (halves_t)_mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  if (count & 4) {
    __builtin_memcpy(words, p, 8);
    words[1] = load_three(p + 4, count - 4);
  } else {
    words[0] = load_three(p, count);
  }
  return (halves_t)_mm_set_epi64x(static_cast<int64_t>(words[1]), static_cast<int64_t>(words[0]));
}

MLPKERN_INLINE void store_lanes(float* p, vec_t<float> v, int64_t count) {
  if (count & 8) return _mm256_storeu_ps(p, (__m256)v);
  __m128 part = _mm256_castps256_ps128((__m256)v);
  if (count & 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps((__m256)v, 1);
    p += 4;
  }
  if (count & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if (count & 1) _mm_store_ss(p, part);
}
MLPKERN_INLINE void store_lanes(double* p, vec_t<double> v, int64_t count) {
  if (count & 4) return _mm256_storeu_pd(p, (__m256d)v);
  __m128d part = _mm256_castpd256_pd128((__m256d)v);
  if (count & 2) {
    _mm_storeu_pd(p, part);
    part = _mm256_extractf128_pd((__m256d)v, 1);
    p += 2;
  }
  if (count & 1) _mm_store_sd(p, part);
}
MLPKERN_INLINE void store_lanes(uint16_t* p, halves_t v, int64_t count) {
  if (count & 8) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
  uint64_t part = static_cast<uint64_t>(_mm_cvtsi128_si64((__m128i)v));
  if (count & 4) {
    __builtin_memcpy(p, &part, 8);
    part = static_cast<uint64_t>(_mm_extract_epi64((__m128i)v, 1));
    p += 4;
  }
  if (count & 2) {
    __builtin_memcpy(p, &part, 4);
    part >>= 32;
    p += 2;
  }
  if (count & 1) __builtin_memcpy(p, &part, 2);
}

// ---- maximum, reductions, square root ----

MLPKERN_INLINE vec_t<float> maximum(vec_t<float> a, vec_t<float> b) {
  return (vec_t<float>)_mm256_max_ps((__m256)a, (__m256)b);
}
MLPKERN_INLINE vec_t<double> maximum(vec_t<double> a, vec_t<double> b) {
  return (vec_t<double>)_mm256_max_pd((__m256d)a, (__m256d)b);
}
MLPKERN_INLINE vec_t<float> minimum(vec_t<float> a, vec_t<float> b) {
  return (vec_t<float>)_mm256_min_ps((__m256)a, (__m256)b);
}
MLPKERN_INLINE float reduce_max(vec_t<float> v) {
  const __m128 four =
      _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
MLPKERN_INLINE double reduce_max(vec_t<double> v) {
  const __m128d two =
      _mm_max_pd(_mm256_castpd256_pd128((__m256d)v), _mm256_extractf128_pd((__m256d)v, 1));
  return _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)));
}
MLPKERN_INLINE float reduce_add(vec_t<float> v) {
  const __m128 four =
      _mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
MLPKERN_INLINE double reduce_add(vec_t<double> v) {
  const __m128d two =
      _mm_add_pd(_mm256_castpd256_pd128((__m256d)v), _mm256_extractf128_pd((__m256d)v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}
MLPKERN_INLINE vec_t<float> square_root(vec_t<float> x) {
  return (vec_t<float>)_mm256_sqrt_ps((__m256)x);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
