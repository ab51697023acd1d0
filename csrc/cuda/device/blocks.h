// The number of blocks of a launch; for launch.cuh and its twin in tests/fiber.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace mlpkern::cuda {

constexpr int64_t kMostBlocksInX = 0x7FFFFFFF, kMostBlocksInYZ = 65535;

// 64-bit counts, so that a count beyond the limits of a grid is refused rather than truncated.
struct Blocks {
  int64_t x, y, z;

  constexpr Blocks(int64_t x, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {}

  constexpr bool none() const { return x == 0 || y == 0 || z == 0; }
  constexpr bool make_a_grid() const {
    return x > 0 && x <= kMostBlocksInX && y > 0 && y <= kMostBlocksInYZ && z > 0 &&
           z <= kMostBlocksInYZ;
  }
  dim3 grid() const {
    return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
  }
};

}  // namespace mlpkern::cuda
