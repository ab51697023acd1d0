// The fold of the first layer, for evaluate and train_steps: x weight_0^T = sum over positions p of
// tables_p[id_p] with
//   tables_p = embedding weight_0[:, p*D .. p*D + D]^T      (V, H1)
// so that a row of the batch costs T additions of H1 numbers instead of T*D*H1 multiply-adds. This
// pays where many rows share the tables.
//
// A pair (position, id) in use has a slot, a row of the tables; the slots of a position are
// adjacent and in order of the ids. Layer 0 goes by columns (Sizes::folds).
#pragma once

#include "cpu/mlp/forward.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kFoldTableBytes = 1
                                    << 20;  // of all tables: half of L2, rows are picked at random

template <class A>
struct Fold {
  int64_t count = 0;    // slots in use
  int64_t* begin;       // (T + 1,) slots of position p: [begin[p], begin[p + 1])
  int64_t* ids;         // (slots,)
  int32_t* slot_of;     // (T, V): of the pairs in use
  Matrix<A> embedding;  // (slots, D + 1): the rows of the embedding, then a 1
  Matrix<A> tables;     // (slots, H1); those of p = 0 hold the bias
};

// Whether `rows` rows are enough to pay for the tables in evaluate. With fewer than four columns a
// position the additions cost as much as the multiply-adds.
template <class A>
bool fold_pays(const Sizes& z, int64_t rows) {
  return z.D >= 4 && rows >= 4 * z.V &&
         z.T * z.V * z.outputs(0) * static_cast<int64_t>(sizeof(A)) <= kFoldTableBytes;
}

// For batches of at most `rows` rows.
template <class A>
Fold<A> take_fold(Arena& arena, const Sizes& z, int64_t rows) {
  const int64_t slots = z.T * (z.V < rows ? z.V : rows);
  Fold<A> fold;
  fold.begin = arena.take<int64_t>(z.T + 1);
  fold.ids = arena.take<int64_t>(slots + 1);
  fold.slot_of = arena.take<int32_t>(z.T * z.V);
  fold.embedding = take_matrix<A>(arena, slots, z.D + 1);
  fold.tables = take_matrix<A>(arena, slots, z.outputs(0));
  return fold;
}

// Gives a slot to each pair marked by a 1 in slot_of, all others being 0, and fetches its row.
template <class A>
void number_slots(Fold<A>& fold, const Sizes& z, const A* embedding) {
  constexpr int64_t L = kLanes<A>;
  int64_t count = 0;
  for (int64_t p = 0; p < z.T; ++p) {
    fold.begin[p] = count;
    int32_t* slot_of = fold.slot_of + p * z.V;
    for (int64_t id = 0; id < z.V; ++id) {  // without a branch that depends on the batch
      const int32_t in_use = slot_of[id];
      fold.ids[count] = id;
      slot_of[id] = static_cast<int32_t>(count);
      count += in_use;
    }
  }
  fold.begin[z.T] = fold.count = count;
  for (int64_t slot = 0; slot < count; ++slot) {
    const A* from = embedding + fold.ids[slot] * z.D;
    A* to = fold.embedding.row(slot);
    for (int64_t d = 0; d < z.D; d += L)
      store(to + d, z.D - d < L ? load_part(from + d, z.D - d) : load(from + d));
    to[z.D] = A{1};
  }
}

// Slots for all pairs.
template <class A>
void use_all_pairs(Fold<A>& fold, const Sizes& z, const A* embedding) {
  for (int64_t i = 0; i < z.T * z.V; ++i) fold.slot_of[i] = 1;
  number_slots(fold, z, embedding);
}

// Slots for the pairs in ids (rows, T).
template <class A>
void use_pairs_of(Fold<A>& fold, const Sizes& z, const A* embedding, const int64_t* ids,
                  int64_t rows) {
  std::memset(fold.slot_of, 0, static_cast<size_t>(z.T * z.V) * sizeof(int32_t));
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t p = 0; p < z.T; ++p) fold.slot_of[p * z.V + ids[n * z.T + p]] = 1;
  number_slots(fold, z, embedding);
}

// The slots of ids (rows, T); to: (rows up to whole vectors, T).
template <class A>
void find_slots(int32_t* to, const Fold<A>& fold, const Sizes& z, const int64_t* ids,
                int64_t rows) {
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t p = 0; p < z.T; ++p) to[n * z.T + p] = fold.slot_of[p * z.V + ids[n * z.T + p]];
  for (int64_t i = rows * z.T; i < round_up(rows, kLanes<A>) * z.T; ++i) to[i] = 0;
}

// The tables of all slots for some column panels of H1.
template <class A>
void fill_tables(const Fold<A>& fold, const Sizes& z, const Weights<A>& w, Range columns) {
  const Matrix<A> to = fold.tables, weight = w.layers[0];
  const A* const bias = weight.row(z.inputs(0));
  for (int64_t p = 0; p < z.T; ++p) {
    const int64_t first = fold.begin[p];
    const RowTiles cut(fold.begin[p + 1] - first);
    const Operands<A> of{fold.embedding.row(first), fold.embedding.step, 1, z.D,
                         weight.row(p * z.D),       weight.step};
    product(cut, {0, cut.count}, of, ColumnPanels<A>(z.outputs(0)), columns,
            [=](int64_t row, int64_t column, vec_t<A> sum) {
              if (p == 0) sum += load(bias + column);
              store(to.row(first + row) + column, sum);
            });
  }
}

// units[1] for some rows of the block and some vectors of H1, a square of lanes at a time; slots
// are those of the block. The mask is that of forward_hidden.
template <class A>
void forward_folded(const Activations<A>& s, const Sizes& z, const Fold<A>& fold,
                    const int32_t* slots, Range rows, Range vectors, const Matrix<A>& mask = {}) {
  constexpr int64_t L = kLanes<A>;
  const int64_t step = fold.tables.step;
  with_activation(s.units[1], mask, [&](const auto& finish) {
    for (int64_t v = vectors.begin; v < vectors.end; ++v)
      for (int64_t n = rows.begin; n < rows.end; n += L) {
        const A* const tables = fold.tables.data + v * L;
        const int32_t* at = slots + n * z.T;
        vec_t<A> block[L];
#pragma GCC unroll 16
        for (int64_t i = 0; i < L; ++i) block[i] = load(tables + at[i * z.T] * step);
        for (int64_t p = 1; p < z.T; ++p)
#pragma GCC unroll 16
          for (int64_t i = 0; i < L; ++i) block[i] += load(tables + at[i * z.T + p] * step);
        transpose<A>(block);
        const int64_t units = z.outputs(0) - v * L;
#pragma GCC unroll 16
        for (int64_t j = 0; j < L; ++j)
          if (j < units) finish(v * L + j, n, block[j]);
      }
  });
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
