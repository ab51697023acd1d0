// The fold of embedding_linear_tanh: instead of multiplying the weight by every row of the batch,
// multiply it by every row of the embedding table, once per position. Here: when this pays, and
// what forward and backward share.
//
// The folded tables are (V, T, step), where step is H padded to whole vectors (row_step_for).
#pragma once

#include "cpu/layer/linear_tanh_backward.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Costs in multiply-adds, per position and hidden unit. A row of the batch: D without the fold;
// with it kGather, or kFarGather where the tables exceed kFoldBytes (half of L2). A row of a table:
// D + kTableRow. Fitted to one core of an AVX-512 machine, V 27 ... 3000, D 4 ... 64.
constexpr int64_t kGather = 4, kFarGather = 9, kTableRow = 16;
constexpr int64_t kFoldBytes = 1 << 20;

template <class Args>
bool folds(const Args& a) {
  if (a.N == 0 || a.T == 0 || a.H == 0 || a.V == 0) return false;
  const int64_t elements = a.V * a.T * row_step_for(a.dtype, a.H);
  const bool near = elements * acc_size(a.dtype) <= kFoldBytes;
  return elements <= kPartialElements &&
         a.N * (a.D - (near ? kGather : kFarGather)) > a.V * (a.D + kTableRow);
}

// Calls step(std::integral_constant<int, vectors>, column) until it has covered `columns` columns,
// with as many vectors at a time as fit.
template <class A, int Vectors = 8, class Step>
MLPKERN_INLINE void for_column_groups(int64_t columns, const Step& step, int64_t column = 0) {
  constexpr int64_t width = Vectors * kLanes<A>;
  for (; columns - column >= width; column += width)
    step(std::integral_constant<int, Vectors>(), column);
  if constexpr (Vectors > 1)
    if (column < columns) for_column_groups<A, Vectors / 2>(columns, step, column);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
