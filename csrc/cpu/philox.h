// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011) and the dropout masks drawn from it.
//
// The word of (seed, stream, step, layer, row n, unit u) is word u % 4 of the block with
//   counter = (u / 4, n, step mod 2^32, stream << 8 | layer),  key = (low, high) half of the seed,
// so every mask can be drawn in any order, on any machine. A unit is kept if its word is at least
// round(p * 2^32), and then multiplied by 1 / (1 - p).
#pragma once

#include <cmath>

#include "cpu/mlp.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

struct DropoutKey {
  uint32_t key0, key1, step, stream_layer;
};

// Words of `Count` neighboring rows, from row `first` on: words[i][r] is word i of row first + r.
template <int Count>
MLPKERN_INLINE void philox_rows(const DropoutKey& at, uint32_t block, uint32_t first,
                                uint32_t (&words)[4][Count]) {
  for (int r = 0; r < Count; ++r) {
    uint32_t c0 = block, c1 = first + static_cast<uint32_t>(r), c2 = at.step, c3 = at.stream_layer;
    uint32_t k0 = at.key0, k1 = at.key1;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
      const uint32_t high0 = static_cast<uint32_t>(p0 >> 32), low0 = static_cast<uint32_t>(p0);
      const uint32_t high1 = static_cast<uint32_t>(p1 >> 32), low1 = static_cast<uint32_t>(p1);
      c0 = high1 ^ c1 ^ k0;
      c1 = low1;
      c2 = high0 ^ c3 ^ k1;
      c3 = low0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    words[0][r] = c0;
    words[1][r] = c1;
    words[2][r] = c2;
    words[3][r] = c3;
  }
}

// mask[u * step + n] = 1 / (1 - p) or 0, for units [0, units) and the rows of a block from
// `rows.begin` to `rows.end` rounded up to whole vectors. The block begins at row `block` of the
// batch.
template <class A>
void dropout_mask(A* mask, int64_t step, int64_t units, Range rows, int64_t block, double p,
                  const DropoutKey& at) {
  constexpr int kCount = static_cast<int>(kLanes<A>);
  const uint64_t threshold = static_cast<uint64_t>(std::nearbyint(p * 4294967296.0));
  const A scale = static_cast<A>(1 / (1 - p));
  uint32_t words[4][kCount];
  for (int64_t u = 0; u < units; u += 4)
    for (int64_t n = rows.begin; n < rows.end; n += kCount) {
      philox_rows(at, static_cast<uint32_t>(u / 4), static_cast<uint32_t>(block + n), words);
      for (int64_t i = 0; i < 4 && u + i < units; ++i)
        for (int r = 0; r < kCount; ++r)
          mask[(u + i) * step + n + r] = words[i][r] >= threshold ? scale : A{0};
    }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
