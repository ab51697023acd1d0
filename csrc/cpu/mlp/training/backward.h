// The loss of a block of rows and the backward pass from it, see mlp.h for the layout.
#pragma once

#include "cpu/mlp/forward.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// What the backward pass of a block writes. dz of the output layer overwrites the logits.
template <class A>
struct Backward {
  double* losses;                 // (capacity,)
  Matrix<A> dz[kMaxLayers];       // [l] (outputs(l), capacity), l < L
  Matrix<A> dz_rows[kMaxLayers];  // [l] (capacity, outputs(l)), l > 0
  Matrix<A> dx[kMaxLayers];       // [l] (capacity, inputs(l)), layers by rows
  Matrix<A> x_rows[kMaxLayers];   // [l] (capacity, inputs(l) + 1), layers l > 0 by rows
  Matrix<A> masks[kMaxLayers];    // [l] (outputs(l), capacity) dropout of hidden layer l, or null
  Matrix<A> input_mask;           // (capacity, T*D), or null
  Matrix<A> drawn_mask;           // (T*D, capacity): as drawn, before its transposition
};

template <class A>
Backward<A> take_backward(Arena& arena, const Sizes& z, int64_t capacity, bool dropout) {
  Backward<A> b;
  const int64_t lanes = round_up(capacity, kLanes<A>);
  b.losses = arena.take<double>(capacity);
  for (int64_t l = 0; l < z.L; ++l) b.dz[l] = take_matrix<A>(arena, z.outputs(l), lanes);
  for (int64_t l = 1; l <= z.L; ++l) b.dz_rows[l] = take_matrix<A>(arena, capacity, z.outputs(l));
  for (int64_t l = 0; l <= z.L; ++l) {
    if (!z.by_rows(l)) continue;
    b.dx[l] = take_matrix<A>(arena, capacity, z.inputs(l) + kLanes<A>);
    if (l > 0) b.x_rows[l] = take_matrix<A>(arena, capacity, z.inputs(l) + 1);
  }
  if (!dropout) return b;
  for (int64_t l = 0; l < z.L; ++l) b.masks[l] = take_matrix<A>(arena, z.outputs(l), lanes);
  b.input_mask = take_matrix<A>(arena, capacity, z.inputs(0));
  b.drawn_mask = take_matrix<A>(arena, z.inputs(0), lanes);
  return b;
}

// Rows [begin, begin + Vectors * kLanes) of the block: their losses, and logits become
//   dz = (softmax - (1 - e) onehot(target) - e / C) / batch     (e: label smoothing)
// or 0 in the lanes past the last row. Three passes over the classes, a vector of rows at a time,
// so nothing is summed across lanes.
template <int Vectors, class A>
MLPKERN_INLINE void loss_vectors(const Activations<A>& s, const Backward<A>& b, int64_t C,
                                 int64_t begin, int64_t batch, double smoothing) {
  constexpr int64_t L = kLanes<A>;
  A* const z = s.logits.data + begin;
  const int64_t step = s.logits.step;
  const int64_t rows = s.rows - begin < Vectors * L ? s.rows - begin : Vectors * L;
  vec_t<A> largest[Vectors], sum[Vectors], total[Vectors];
#pragma GCC unroll 2
  for (int v = 0; v < Vectors; ++v) {
    largest[v] = load(z + v * L);
    sum[v] = total[v] = vec_t<A>{};
  }
  for (int64_t c = 1; c < C; ++c)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) largest[v] = maximum(largest[v], load(z + c * step + v * L));
  alignas(64) A target_logits[Vectors * L] = {};
  for (int64_t n = 0; n < rows; ++n) target_logits[n] = z[s.targets[begin + n] * step + n];
  for (int64_t c = 0; c < C; ++c)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      A* z_c = z + c * step + v * L;
      const vec_t<A> shifted = load(z_c) - largest[v];
      const vec_t<A> e = exp_nonpositive(shifted);
      total[v] += shifted;
      sum[v] += e;
      store(z_c, e);
    }
  const A keep = static_cast<A>(1 - smoothing), even = static_cast<A>(smoothing / C);
  const A one_row = A{1} / static_cast<A>(batch);
#pragma GCC unroll 2
  for (int v = 0; v < Vectors; ++v) {
    const vec_t<A> log_sum = log_of_sum(sum[v]);
    vec_t<A> loss = keep * (log_sum - (load(target_logits + v * L) - largest[v]));
    if (smoothing != 0) loss += even * (static_cast<A>(C) * log_sum - total[v]);
    store(target_logits + v * L, loss);
    const int64_t left = rows - v * L;
    const vec_t<A> row = first_lanes<A>(splat(one_row), left < 0 ? 0 : left, A{0});
    sum[v] = row / sum[v];
    total[v] = row * even;
  }
  for (int64_t n = 0; n < rows; ++n) b.losses[begin + n] = static_cast<double>(target_logits[n]);
  for (int64_t c = 0; c < C; ++c)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      A* z_c = z + c * step + v * L;
      // a select, not a product: past the last row e may be NaN
      const vec_t<A> p = load(z_c) * sum[v] - total[v];
      store(z_c, sum[v] != vec_t<A>{} ? p : vec_t<A>{});
    }
  for (int64_t n = 0; n < rows; ++n) z[s.targets[begin + n] * step + n] -= keep * one_row;
}

template <class A>
void loss_and_gradient(const Activations<A>& s, const Backward<A>& b, int64_t C, Range panels,
                       int64_t batch, double smoothing) {
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    const int64_t begin = p * kTileColumns<A>;
    if (s.panels().vectors(p) == kTileVectors)
      loss_vectors<kTileVectors>(s, b, C, begin, batch, smoothing);
    else
      loss_vectors<1>(s, b, C, begin, batch, smoothing);
  }
}

// dz of layer l, (outputs, n); that of the output layer is where the logits were.
template <class A>
const Matrix<A>& dz_of(const Activations<A>& s, const Backward<A>& b, const Sizes& z, int64_t l) {
  return l == z.L ? s.logits : b.dz[l];
}

// The transposes for layer l > 0: of dz always, of its input if the layer goes by rows.
template <class A>
void transpose_layer(const Activations<A>& s, const Backward<A>& b, const Sizes& z, int64_t l,
                     Range rows) {
  const int64_t n = rows.begin, count = rows.end - rows.begin;
  const Matrix<A>& dz = dz_of(s, b, z, l);
  pack_transposed(b.dz_rows[l].row(n), b.dz_rows[l].step, dz.data + n, dz.step, z.outputs(l),
                  count);
  if (z.by_rows(l))
    pack_transposed(b.x_rows[l].row(n), b.x_rows[l].step, s.units[l].data + n, s.units[l].step,
                    z.inputs(l) + 1, count);
}

// dz[l - 1] = (weight_l^T dz_l) (1 - units[l]^2) for a layer by columns.
template <class A>
void backward_hidden(const Activations<A>& s, const Backward<A>& b, const Sizes& z,
                     const Weights<A>& w, int64_t l, Range tiles, Range panels) {
  const Matrix<A> weight = w.layers[l], from = dz_of(s, b, z, l);
  const Matrix<A> to = b.dz[l - 1], units = s.units[l], slope = b.masks[l - 1];
  const auto multiply_by = [&](const auto& slope_of) {
    const Operands<A> of{weight.data, weight.step, 1, z.outputs(l), from.data, from.step};
    product(
        RowTiles(z.inputs(l)), tiles, of, s.panels(), panels,
        [to, slope_of](int64_t row, int64_t column, vec_t<A> dy) {
          store(to.row(row) + column, dy * slope_of(row, column));
        },
        to);
  };
  if (slope.data)
    multiply_by([slope](int64_t row, int64_t column) { return load(slope.row(row) + column); });
  else
    multiply_by([units](int64_t row, int64_t column) {
      const vec_t<A> y = load(units.row(row) + column);
      return A{1} - y * y;
    });
}

// dx[l] = dz_l^T weight_l for a layer by rows, times the dropout mask of the input in layer 0; the
// rows of the batch, `batch` in all, are the rows of the tiles. `columns` are panels of the inputs.
template <class A>
void backward_rows(const Backward<A>& b, const Sizes& z, const Weights<A>& w, int64_t l, Range rows,
                   Range columns, int64_t batch) {
  const RowTiles tiles(rows.end - rows.begin);
  const Matrix<A> weight = w.layers[l], to = {b.dx[l].row(rows.begin), b.dx[l].step};
  const auto multiply_by_weight = [&](const auto& finish) {
    const A* dz = l == 0 ? b.dz[0].data + rows.begin : b.dz_rows[l].row(rows.begin);
    const int64_t row_step = l == 0 ? 1 : b.dz_rows[l].step, k_step = l == 0 ? b.dz[0].step : 1;
    Operands<A> of{dz, row_step, k_step, z.outputs(l), weight.data, weight.step};
    of.one_chain = batch > kTileColumns<A>;  // several panels, which threads may share
    product(tiles, {0, tiles.count}, of, ColumnPanels<A>(z.inputs(l)), columns, finish, to);
  };
  if (l == 0 && b.input_mask.data) {
    const Matrix<A> factor = {b.input_mask.row(rows.begin), b.input_mask.step};
    multiply_by_weight([to, factor](int64_t row, int64_t column, vec_t<A> d) {
      store(to.row(row) + column, d * load(factor.row(row) + column));
    });
  } else {
    multiply_by_weight(
        [to](int64_t row, int64_t column, vec_t<A> d) { store(to.row(row) + column, d); });
  }
}

// dz[l - 1] from dx[l] of a layer by rows: transposed, times the slope of tanh.
template <class A>
void slope_of_rows(const Activations<A>& s, const Backward<A>& b, const Sizes& z, int64_t l,
                   Range rows) {
  const Matrix<A>&to = b.dz[l - 1], &units = s.units[l], &slope = b.masks[l - 1];
  const int64_t n = rows.begin, count = rows.end - rows.begin;
  pack_transposed(to.data + n, to.step, b.dx[l].row(n), b.dx[l].step, count, z.inputs(l));
  for (int64_t i = 0; i < z.inputs(l); ++i)
    for (int64_t c = n; c < rows.end; c += kLanes<A>) {
      const vec_t<A> y = load(units.row(i) + c);
      const vec_t<A> d = slope.data ? load(slope.row(i) + c) : A{1} - y * y;
      store(to.row(i) + c, load(to.row(i) + c) * d);
    }
}

// finish(row, column, values) for the tiles of dweight_l over the rows of the block.
template <class A, class Finish>
MLPKERN_INLINE void weight_gradient(const Activations<A>& s, const Backward<A>& b, const Sizes& z,
                                    int64_t l, Range tiles, const Finish& finish) {
  const Matrix<A>& left = z.by_rows(l) ? dz_of(s, b, z, l) : s.units[l];
  const Matrix<A>& right = l == 0 ? s.x : z.by_rows(l) ? b.x_rows[l] : b.dz_rows[l];
  const ColumnPanels<A> cut(z.weight_columns(l));
  const Operands<A> of{left.data, left.step, 1, s.rows, right.data, right.step};
  product(RowTiles(z.weight_rows(l)), tiles, of, cut, {0, cut.count}, finish);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
