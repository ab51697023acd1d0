// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011) and the dropout masks drawn from it.
//
// The word of (seed, stream, step, layer, row n, unit u) is word u % 4 of the block with
//   counter = (u / 4, n, step mod 2^32, stream << 8 | layer),  key = (low, high) half of the seed,
// so every mask can be drawn in any order, on any machine. A unit is kept if its word is at least
// round(p * 2^32), and then multiplied by 1 / (1 - p).
#pragma once

#include <cmath>

#include "cpu/mlp/mlp.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

struct DropoutKey {
  uint32_t key0, key1, step, stream_layer;
};

// Words in the low halves of the lanes; the high halves hold anything.
typedef uint64_t wide_words_t __attribute__((vector_size(kVectorBytes)));
constexpr int64_t kWideLanes = kVectorBytes / sizeof(uint64_t);

MLPKERN_INLINE wide_words_t multiply_words(wide_words_t a, wide_words_t b) {
#if defined(__AVX512F__)
  return (wide_words_t)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (wide_words_t)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (wide_words_t)_mm_mul_epu32((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
  return (wide_words_t)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b));
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

// The four words of each of `rows`.
MLPKERN_INLINE void philox_rows(const DropoutKey& at, uint32_t block, wide_words_t rows,
                                wide_words_t (&words)[4]) {
  const wide_words_t zero = {};
  wide_words_t c0 = zero + block, c1 = rows, c2 = zero + at.step, c3 = zero + at.stream_layer;
  uint32_t k0 = at.key0, k1 = at.key1;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const wide_words_t p0 = multiply_words(c0, zero + 0xD2511F53u);
    const wide_words_t p1 = multiply_words(c2, zero + 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ (zero + k0);
    c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ (zero + k1);
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// 0, Step, 2 * Step, ...
template <int Step>
MLPKERN_INLINE wide_words_t every_row() {
  wide_words_t rows;
  for (int64_t i = 0; i < kWideLanes; ++i) rows[i] = static_cast<uint64_t>(Step * i);
  return rows;
}

// factors[i] = scale where word i of a row is at least threshold, else 0, for the whole vector of
// rows from `first` on.
MLPKERN_INLINE void dropout_factors(const DropoutKey& at, uint32_t block, uint32_t first,
                                    uint64_t threshold, float scale, vec_t<float> (&factors)[4]) {
  wide_words_t even[4], odd[4];
  philox_rows(at, block, every_row<2>() + first, even);
  philox_rows(at, block, every_row<2>() + (first + 1), odd);
  const bool any = threshold >> 32 == 0;  // a threshold of 2^32 is above all words
  const ints_t<float> kept = (ints_t<float>)splat(any ? scale : 0.0f);
  const words_t least = words_t{} + static_cast<uint32_t>(threshold);
  for (int i = 0; i < 4; ++i) {
    const words_t words = (words_t)((even[i] & 0xFFFFFFFFu) | (odd[i] << 32));
    factors[i] = (vec_t<float>)((words >= least) & kept);
  }
}
MLPKERN_INLINE void dropout_factors(const DropoutKey& at, uint32_t block, uint32_t first,
                                    uint64_t threshold, double scale, vec_t<double> (&factors)[4]) {
  wide_words_t words[4];
  philox_rows(at, block, every_row<1>() + first, words);
  const ints_t<double> kept = (ints_t<double>)splat(scale);
  const wide_words_t least = wide_words_t{} + threshold;
  for (int i = 0; i < 4; ++i)
    factors[i] = (vec_t<double>)(((words[i] & 0xFFFFFFFFu) >= least) & kept);
}

// mask[u * step + n] = 1 / (1 - p) or 0, for units [0, units) and the rows of a block from
// `rows.begin` to `rows.end` rounded up to whole vectors. The block begins at row `block` of the
// batch.
template <class A>
void dropout_mask(A* mask, int64_t step, int64_t units, Range rows, int64_t block, double p,
                  const DropoutKey& at) {
  const uint64_t threshold = static_cast<uint64_t>(std::nearbyint(p * 4294967296.0));
  const A scale = static_cast<A>(1 / (1 - p));
  vec_t<A> factors[4];
  for (int64_t u = 0; u < units; u += 4)
    for (int64_t n = rows.begin; n < rows.end; n += kLanes<A>) {
      dropout_factors(at, static_cast<uint32_t>(u / 4), static_cast<uint32_t>(block + n), threshold,
                      scale, factors);
      A* const to = mask + u * step + n;
      const int64_t left = units - u;
      for (int64_t i = 0; i < 4; ++i)
        if (i < left) store(to + i * step, factors[i]);
    }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
