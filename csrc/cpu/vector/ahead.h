// Prefetches far memory into L2 while a product runs, a few bytes with every term. A core has at
// most 16 outstanding lines, including those that the product reads from L2: a burst of prefetches
// would stall the product for the latency of memory, evenly spread ones cost nothing.
#pragma once

#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// The first term prefetches `at`, each later one the address `step` bytes further.
struct Stretch {
  const char* at;
  int64_t step;
  MLPKERN_INLINE void next() {
    __builtin_prefetch(at, 0, 2);
    at += step;
  }
};

// Up to four regions, one after the other.
class Ahead {
 public:
  // Rows [first, first + rows) of a matrix, if they are adjacent in memory and there are any.
  template <class T>
  void add_rows(T* matrix, int64_t first, int64_t rows, int64_t columns, int64_t row_stride) {
    if (!matrix || rows <= 0 || row_stride != columns || columns == 0) return;
    Region& region = regions_[count_++];
    region.at = reinterpret_cast<const char*>(matrix + first * row_stride);
    region.bytes = rows * columns * static_cast<int64_t>(sizeof(T));
    total_ += region.bytes;
  }

  // Spreads the regions over `terms` terms, at most a line a term.
  void spread_over(int64_t terms) {
    step_ = total_ / (terms > 0 ? terms : 1) + 1;
    if (step_ > 64) step_ = 64;
  }

  // The prefetches of a product of `terms` terms; `near` is an address in a cache.
  MLPKERN_INLINE Stretch take(int64_t terms, const void* near) {
    if (next_ == count_) return {static_cast<const char*>(near), 0};
    Region& region = regions_[next_];
    const Stretch stretch{region.at, step_};
    region.at += terms * step_;
    region.bytes -= terms * step_;
    if (region.bytes <= 0) ++next_;
    return stretch;
  }

 private:
  struct Region {
    const char* at;
    int64_t bytes;
  };
  Region regions_[4];
  int64_t count_ = 0, next_ = 0, total_ = 0, step_ = 0;
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
