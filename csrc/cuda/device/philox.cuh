// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011) and the dropout masks drawn from it. mlpkern/reference/philox.py defines the counters.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace mlpkern::cuda {

// The mask of one layer in one step: its key, the common part of its counters, and which words keep
// a unit.
struct Dropout {
  uint32_t key0, key1, step, stream_layer;
  uint64_t threshold;  // a unit is kept if its word is at least this
  float scale;         // the factor of kept units
  bool drops;          // false: a mask of ones
};

// `d` some steps later.
__device__ __forceinline__ Dropout later(Dropout d, int64_t steps) {
  d.step += static_cast<uint32_t>(steps);
  return d;
}

// Layer 0 is the embedded input, l the output of hidden layer l.
__device__ __forceinline__ Dropout dropout_of(double p, int64_t seed, int64_t stream, int64_t step,
                                              int layer) {
  const uint64_t bits = static_cast<uint64_t>(seed);
  return {static_cast<uint32_t>(bits),
          static_cast<uint32_t>(bits >> 32),
          static_cast<uint32_t>(step),
          static_cast<uint32_t>(stream) << 8 | static_cast<uint32_t>(layer),
          static_cast<uint64_t>(rint(p * 4294967296.0)),
          static_cast<float>(1 / (1 - p)),
          p > 0};
}

// The words of units 4 * block ... 4 * block + 3 of a row of the batch.
__device__ __forceinline__ void philox(uint32_t (&word)[4], const Dropout& d, uint32_t block,
                                       uint32_t row) {
  uint32_t c0 = block, c1 = row, c2 = d.step, c3 = d.stream_layer, k0 = d.key0, k1 = d.key1;
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

// The factor of one unit: 0 or scale.
__device__ __forceinline__ float dropout_factor(const Dropout& d, int unit, int row) {
  uint32_t word[4];
  philox(word, d, static_cast<uint32_t>(unit) / 4, static_cast<uint32_t>(row));
  const int which = unit & 3;
  const uint32_t mine = which == 0   ? word[0]
                        : which == 1 ? word[1]
                        : which == 2 ? word[2]
                                     : word[3];
  return mine < d.threshold ? 0.0f : d.scale;
}

}  // namespace mlpkern::cuda
