// Division by a number that is constant during a launch, by a multiplication and a shift.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace mlpkern::cuda {

// With 2^(s-1) < d <= 2^s and m = ceil(2^(31+s) / d), x*m / 2^(31+s) exceeds x/d by less than
// x*d / (d * 2^(31+s)) * 2^s / d < 1/d for every x < 2^31: the quotients are equal.
struct Divisor {
  uint32_t multiplier, shift;
};

// 1 <= d < 2^31.
inline Divisor divisor_of(uint32_t d) {
  uint32_t s = 0;
  while ((uint64_t{1} << s) < d) ++s;
  return {static_cast<uint32_t>(((uint64_t{1} << (31 + s)) + d - 1) / d), 31 + s};
}

// x / d for x < 2^31.
__device__ __forceinline__ uint32_t divide(uint32_t x, Divisor d) {
  return static_cast<uint32_t>(uint64_t{x} * d.multiplier >> d.shift);
}

}  // namespace mlpkern::cuda
