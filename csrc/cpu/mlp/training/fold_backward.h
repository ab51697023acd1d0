// The backward pass of the folded first layer (mlp/fold.h):
//   sums_p[id] = sum of dz[n] over the rows n with that id at position p     (V, H1)
//   dweight_0[:, p*D .. p*D + D] = sums_p^T embedding,   dbias_0 = sum of sums_0 over the ids
//   dembedding = sum over p of sums_p weight_0[:, p*D .. p*D + D]
// Only the first line depends on the number of rows: the rows of a block are sorted by slot at each
// position, and each run of rows is summed in registers. Runs end with the block, so that no chain
// of additions is long.
#pragma once

#include "cpu/mlp/fold.h"
#include "cpu/mlp/training/backward.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Costs per position and hidden unit, where a row of the batch costs D in the unfolded step: with
// the fold a row costs kFoldedRow, a row of a table D + kTableRow, and kFewestRows rows more pay
// for the fixed costs of a step. Fitted to one core of an AVX-512 machine, V 3 ... 1000, T 1 ...
// 16, D 1 ... 64: at T = 3, D = 10, V = 27 a fold of 32 rows takes 1.2 times as long as none, of 96
// rows 0.94, of 4096 rows 0.7.
constexpr int64_t kFoldedRow = 2, kTableRow = 14, kFewestRows = 4;

// Whether training with batches of `rows` rows folds: by sizes alone, so that the bits of a step do
// not depend on which ids the batch has.
template <class A>
bool fold_pays_in_training(const Sizes& z, int64_t rows) {
  return rows * (z.D - kFoldedRow) > (z.V + kFewestRows) * (z.D + kTableRow) &&
         z.T * z.V * z.outputs(0) * static_cast<int64_t>(sizeof(A)) <= kFoldTableBytes;
}

template <class A>
struct FoldGradient {
  Matrix<A> dz;         // (capacity, H1): of a block
  int32_t* order;       // (capacity * T,) the rows of a block by slot
  int32_t* ends;        // (slots,) where the rows of a slot end there
  Matrix<A> sums;       // (slots, H1)
  Matrix<A> weight;     // (H1, T*D): before the step
  Matrix<A> embedding;  // (slots, D): the gradient by slots
};

// For batches of `rows` rows that come in blocks of `capacity`.
template <class A>
FoldGradient<A> take_fold_gradient(Arena& arena, const Sizes& z, int64_t rows, int64_t capacity) {
  const int64_t slots = z.T * (z.V < rows ? z.V : rows);
  FoldGradient<A> g;
  g.dz = take_matrix<A>(arena, capacity, z.outputs(0));
  g.order = arena.take<int32_t>(capacity * z.T);
  g.ends = arena.take<int32_t>(slots);
  g.sums = take_matrix<A>(arena, slots, z.outputs(0));
  g.weight = take_matrix<A>(arena, z.outputs(0), z.inputs(0) + kLanes<A>);
  g.embedding = take_matrix<A>(arena, slots, z.D + kLanes<A>);
  return g;
}

// Keeps the weight of some column panels of H1 in the form that embedding_by_slots reads.
template <class A>
void keep_weight(const FoldGradient<A>& g, const Sizes& z, const Weights<A>& w, Range columns) {
  const Matrix<A> from = w.layers[0];
  const int64_t begin = columns.begin * kTileColumns<A>, end = columns.end * kTileColumns<A>;
  const int64_t last = end < z.outputs(0) ? end : z.outputs(0);
  pack_transposed(g.weight.row(begin), g.weight.step, from.data + begin, from.step, z.inputs(0),
                  last - begin);
}

// dz of layer 0 with the rows of the batch in the rows.
template <class A>
void transpose_first(const FoldGradient<A>& g, const Backward<A>& b, const Sizes& z, Range rows) {
  pack_transposed(g.dz.row(rows.begin), g.dz.step, b.dz[0].data + rows.begin, b.dz[0].step,
                  z.outputs(0), rows.end - rows.begin);
}

// Sorts the rows of a block by slot, for each position. slots: (rows, T).
template <class A>
void sort_by_slots(const FoldGradient<A>& g, const Fold<A>& fold, const Sizes& z,
                   const int32_t* slots, int64_t rows) {
  std::memset(g.ends, 0, static_cast<size_t>(fold.count) * sizeof(int32_t));
  for (int64_t i = 0; i < rows * z.T; ++i) ++g.ends[slots[i]];
  int32_t begin = 0;
  for (int64_t slot = 0; slot < fold.count; ++slot) {
    const int32_t count = g.ends[slot];
    g.ends[slot] = begin;
    begin += count;
  }
  for (int64_t n = 0; n < rows; ++n)  // moves each begin to the end
    for (int64_t p = 0; p < z.T; ++p)
      g.order[g.ends[slots[n * z.T + p]]++] = static_cast<int32_t>(n);
}

constexpr int kMostSums = 16;  // vectors

// to = the sum of Vectors vectors of the listed rows, or += unless `first`.
template <class A, int Vectors>
void sum_rows(A* to, const A* from, int64_t step, const int32_t* order, int64_t count, bool first) {
  constexpr int64_t L = kLanes<A>;
  vec_t<A> sum[Vectors];
#pragma GCC unroll 16
  for (int v = 0; v < Vectors; ++v) sum[v] = vec_t<A>{};
  for (int64_t i = 0; i < count; ++i) {
    const A* row = from + order[i] * step;
#pragma GCC unroll 16
    for (int v = 0; v < Vectors; ++v) sum[v] += load(row + v * L);
  }
#pragma GCC unroll 16
  for (int v = 0; v < Vectors; ++v) store(to + v * L, first ? sum[v] : load(to + v * L) + sum[v]);
}

template <class A>
using SumRows = void (*)(A*, const A*, int64_t, const int32_t*, int64_t, bool);

template <class A, int Vectors = kMostSums>
SumRows<A> pick_sum_rows(int64_t vectors) {
  if constexpr (Vectors > 1) {
    if (vectors < Vectors) return pick_sum_rows<A, Vectors - 1>(vectors);
  }
  return sum_rows<A, Vectors>;
}

// Adds the rows of the sorted block to the sums, for some column panels of H1.
template <class A>
void sum_by_slots(const FoldGradient<A>& g, const Fold<A>& fold, const Sizes& z, Range columns,
                  bool first_block) {
  const int64_t all = ceil_div(z.outputs(0), kLanes<A>), last = columns.end * kTileVectors;
  const Range vectors{columns.begin * kTileVectors, last < all ? last : all};
  const int64_t groups = ceil_div(vectors.end - vectors.begin, kMostSums);
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t count = vectors.end - vectors.begin;
    const int64_t v = vectors.begin + count * i / groups;
    const int64_t width = vectors.begin + count * (i + 1) / groups - v, h = v * kLanes<A>;
    const SumRows<A> sum = pick_sum_rows<A>(width);
    for (int64_t slot = 0, begin = 0; slot < fold.count; begin = g.ends[slot++])
      if (first_block || begin < g.ends[slot])
        sum(g.sums.row(slot) + h, g.dz.data + h, g.dz.step, g.order + begin, g.ends[slot] - begin,
            first_block);
  }
}

// finish(row, column, values) for some column panels of dweight_0.
template <class A, class Finish>
MLPKERN_INLINE void folded_weight_gradient(const FoldGradient<A>& g, const Fold<A>& fold,
                                           const Sizes& z, Range columns, const Finish& finish) {
  const int64_t D = z.D, bias = z.inputs(0);
  for (int64_t p = 0; p < z.T; ++p) {
    const int64_t first = fold.begin[p];
    const RowTiles cut(p == 0 ? D + 1 : D);  // the last row of p = 0 sums the ones: the bias
    const Operands<A> of{fold.embedding.row(first), 1,
                         fold.embedding.step,       fold.begin[p + 1] - first,
                         g.sums.row(first),         g.sums.step};
    product(cut, {0, cut.count}, of, ColumnPanels<A>(z.outputs(0)), columns,
            [=](int64_t row, int64_t column, vec_t<A> sum) {
              finish(row < D ? p * D + row : bias, column, sum);
            });
  }
}

constexpr int64_t kPositionParts = 4;  // of the slots of a position, for threads

// The rows of dembedding of some parts, kPositionParts to a position.
template <class A>
void embedding_by_slots(const FoldGradient<A>& g, const Fold<A>& fold, const Sizes& z,
                        Range parts) {
  for (int64_t i = parts.begin; i < parts.end; ++i) {
    const int64_t p = i / kPositionParts, part = i % kPositionParts, first = fold.begin[p];
    const RowTiles cut(fold.begin[p + 1] - first);
    const Matrix<A> to = {g.embedding.row(first), g.embedding.step};
    const ColumnPanels<A> panels(z.D);
    const Operands<A> of{g.sums.row(first),       g.sums.step,  1, z.outputs(0),
                         g.weight.data + p * z.D, g.weight.step};
    product(
        cut, {cut.count * part / kPositionParts, cut.count * (part + 1) / kPositionParts}, of,
        panels, {0, panels.count},
        [to](int64_t row, int64_t column, vec_t<A> d) { store(to.row(row) + column, d); }, to);
  }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
