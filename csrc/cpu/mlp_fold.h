// The fold of the first layer: x weight_0^T = sum over positions p of tables_p[id_p] with
//   tables_p = embedding weight_0[:, p*D .. p*D + D]^T      (V, H1)
// so that a row of the batch costs T additions of H1 numbers instead of T*D*H1 multiply-adds. Pays
// where many rows share the tables.
#pragma once

#include "cpu/mlp_forward.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kFoldTableBytes = 1
                                    << 20;  // of all tables: half of L2, rows are picked at random

template <class A>
struct Fold {
  Matrix<A> tables;      // (T * V, H1), row p * V + v; those of p = 0 hold the bias
  Matrix<A> transposed;  // (T*D + 1, H1)
};

// Whether `rows` rows are enough to pay for the tables. Below four columns a position the additions
// are no fewer than the multiply-adds.
template <class A>
bool fold_pays(const Sizes& z, int64_t rows) {
  return z.D >= 4 && rows >= 4 * z.V &&
         z.T * z.V * z.outputs(0) * static_cast<int64_t>(sizeof(A)) <= kFoldTableBytes;
}

template <class A>
Fold<A> take_fold(Arena& arena, const Sizes& z) {
  return {take_matrix<A>(arena, z.T * z.V, z.outputs(0)),
          take_matrix<A>(arena, z.inputs(0) + 1, z.outputs(0))};
}

template <class A>
void fill_tables(const Fold<A>& fold, const Sizes& z, const Weights<A>& w) {
  const int64_t H = z.outputs(0), K = z.inputs(0);
  const Matrix<A> to = fold.tables, weight = fold.transposed;
  pack_transposed(weight.data, weight.step, w.layers[0].data, w.layers[0].step, H, K + 1);
  const RowTiles cut(z.V);
  const ColumnPanels<A> panels(H);
  const A* const bias = weight.row(K);
  for (int64_t p = 0; p < z.T; ++p)
    product(cut, {0, cut.count}, w.embedding, z.D, 1, z.D, weight.row(p * z.D), weight.step, panels,
            {0, panels.count}, [=](int64_t v, int64_t column, vec_t<A> sum) {
              if (p == 0) sum += load(bias + column);
              store(to.row(p * z.V + v) + column, sum);
            });
}

// units[1] = tanh of the first layer for the rows of the block, a square of lanes at a time.
template <class A>
void forward_folded(const Activations<A>& s, const Sizes& z, const Fold<A>& fold) {
  constexpr int64_t L = kLanes<A>;
  const int64_t H = z.outputs(0);
  const Matrix<A> to = s.units[1];
  for (int64_t n = 0; n < s.rows; n += L)
    for (int64_t h = 0; h < H; h += L) {
      vec_t<A> block[L];
#pragma GCC unroll 16
      for (int64_t i = 0; i < L; ++i) {
        block[i] = vec_t<A>{};
        if (n + i >= s.rows) continue;
        const int64_t* ids = s.ids + (n + i) * z.T;
        for (int64_t p = 0; p < z.T; ++p) block[i] += load(fold.tables.row(p * z.V + ids[p]) + h);
      }
      transpose<A>(block);
#pragma GCC unroll 16
      for (int64_t j = 0; j < L; ++j)
        if (h + j < H) store(to.row(h + j) + n, tanh(block[j]));
    }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
