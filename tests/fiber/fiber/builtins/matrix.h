// mma.sync and ldmatrix. The sums are those of an Ampere tensor core as Fasi, Higham, Mikaitis and
// Pranesh measured them ("Numerical behavior of NVIDIA tensor cores", PeerJ CS 2021): products are
// exact; those of a few k and the accumulator are aligned to the largest exponent among them,
// truncated one bit below the last of float32, and added, and the sum is truncated to float32.
#pragma once

#include <cstdint>

#include "fiber/run/site.h"

namespace mlpkern::fiber {

enum class Operand { tf32, bf16, f16 };

// d (16, 8) += a (16, k) b (k, 8), with the fragments of csrc/cuda/device/ptx.cuh; k is 8 for
// tf32, 16 for the others.
void mma(Operand type, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site);

void ldmatrix_x4(uint32_t (&r)[4], const void* row, bool transposed, Site site);

}  // namespace mlpkern::fiber
