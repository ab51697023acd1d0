// Where the tensors of a call live, and so which kernels serve it.
#pragma once

#include <cstdint>

namespace mlpkern {

// Begins as nowhere; the first tensor of a call sets it, every other one must be there too.
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
