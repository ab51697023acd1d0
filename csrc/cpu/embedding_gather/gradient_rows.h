// The rows of doutput by position, and their addition to a row of sums.
#pragma once

#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// The gradient row of position (n, t) begins at doutput + n * doutput_row_stride + t * D.
template <class T>
struct GradientRows {
  const T* doutput;
  int64_t row_stride, D;
  const T* end;  // one past the last element that may be read

  explicit GradientRows(const EmbeddingGatherBackward& a)
      : doutput(static_cast<const T*>(a.doutput)),
        row_stride(a.doutput_row_stride),
        D(a.D),
        end(doutput + (a.N - 1) * a.doutput_row_stride + a.T * a.D) {}

  MLPKERN_INLINE const T* at(int64_t n, int64_t t) const {
    return doutput + n * row_stride + t * D;
  }
};

// to[0, D) += from[0, D)
template <class T>
MLPKERN_INLINE void add_row(acc_t<T>* to, const T* from, int64_t D) {
  constexpr int64_t L = kLanes<acc_t<T>>;
  int64_t d = 0;
  for (; d + L <= D; d += L) store(to + d, load(to + d) + load(from + d));
  if (d < D) store_part(to + d, load_part(to + d, D - d) + load_part(from + d, D - d), D - d);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
