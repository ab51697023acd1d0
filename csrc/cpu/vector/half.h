// Vectors of bfloat16 and float16 to and from float32, rounded to nearest even.
#pragma once

#include "cpu/vector/types.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

MLPKERN_INLINE vec_t<float> widen(halves_t bits, bf16*) {
  return (vec_t<float>)(__builtin_convertvector(bits, words_t) << 16);
}

MLPKERN_INLINE halves_t narrow(vec_t<float> value, bf16*) {
  const words_t bits = (words_t)value;
  const words_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const words_t quiet_nan = (bits >> 16) | 0x40;
  return __builtin_convertvector(value == value ? rounded : quiet_nan, halves_t);
}

MLPKERN_INLINE vec_t<float> widen(halves_t bits, f16*) {
#if defined(__AVX512F__)
  return (vec_t<float>)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__AVX2__)
  return (vec_t<float>)_mm256_cvtph_ps((__m128i)bits);
#else
  const words_t h = __builtin_convertvector(bits, words_t);
  const words_t sign = (h & 0x8000) << 16, magnitude = h & 0x7fff;
  const words_t normal = (magnitude << 13) + (112u << 23);  // rebiases the exponent
  const words_t special = (magnitude << 13) | 0x7f800000;   // infinity and NaN
  const words_t subnormal = (words_t)(__builtin_convertvector(magnitude, vec_t<float>) * 0x1p-24f);
  words_t result = magnitude < 0x400 ? subnormal : normal;
  result = magnitude >= 0x7c00 ? special : result;
  return (vec_t<float>)(result | sign);
#endif
}

MLPKERN_INLINE halves_t narrow(vec_t<float> value, f16*) {
#if defined(__AVX512F__)
  return (halves_t)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__AVX2__)
  return (halves_t)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
#else
  const words_t bits = (words_t)value, sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  const words_t rebiased = magnitude - (112u << 23);
  const words_t normal = (rebiased + 0xfff + ((rebiased >> 13) & 1)) >> 13;
  // Below 2^-14, adding 0.5 leaves the rounded bits of the subnormal in the low bits.
  const words_t subnormal = (words_t)((vec_t<float>)magnitude + 0.5f) - 0x3f000000u;
  const words_t big = magnitude > 0x7f800000 ? words_t{} + 0x7e00 : words_t{} + 0x7c00;
  words_t result = magnitude < (113u << 23) ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? big : result;  // 65520 and up rounds to infinity
  return __builtin_convertvector(result | sign, halves_t);
#endif
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
