// The device of the tensors of a call, which decides which kernels run.
#pragma once

#include <cstdint>

namespace mlpkern {

// Begins as nowhere; the first tensor of a call sets it, and the others must be on the same device.
struct Place {
  static constexpr int32_t kNowhere = 0, kCPU = 1, kCUDA = 2;  // device types of DLPack

  int32_t type = kNowhere;
  int32_t index = 0;

  bool is_cpu() const { return type == kCPU; }
  bool operator==(const Place& other) const {
    return type == other.type && (is_cpu() || index == other.index);
  }
};

constexpr Place kOnCPU = {Place::kCPU, 0};

}  // namespace mlpkern
