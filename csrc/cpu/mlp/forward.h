// The forward pass of a block of rows: gather, hidden layers, logits. Each function covers a range
// of rows (whole column panels) or of tiles, so that threads can share a block either way.
#pragma once

#include "cpu/mlp/mlp.h"
#include "cpu/mlp/philox.h"
#include "cpu/vector/vmath.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// The activations of a block of at most `capacity` rows.
template <class A>
struct Activations {
  int64_t capacity, rows = 0;       // rows: of the current block
  int64_t* ids;                     // (rows, T)
  int64_t* targets;                 // (rows,)
  Matrix<A> x;                      // (capacity, T*D + 1) the embedded input, unless folded
  Matrix<A> units[kMaxLayers + 1];  // [l] (inputs(l) + 1, capacity): what layer l reads
  Matrix<A> logits;                 // (C, capacity)

  int64_t padded_rows() const { return round_up(rows, kLanes<A>); }
  ColumnPanels<A> panels() const { return ColumnPanels<A>(rows); }
};

// Ids and targets have room for `batch` rows.
template <class A>
Activations<A> take_activations(Arena& arena, const Sizes& z, int64_t capacity, int64_t batch) {
  Activations<A> s;
  s.capacity = capacity;
  s.ids = arena.take<int64_t>(batch * z.T);
  s.targets = arena.take<int64_t>(batch);
  if (!z.folds) s.x = take_matrix<A>(arena, capacity, z.inputs(0) + 1 + kLanes<A>);
  for (int64_t l = z.folds ? 1 : 0; l <= z.L; ++l)
    s.units[l] = take_matrix<A>(arena, z.inputs(l) + 1, round_up(capacity, kLanes<A>));
  s.logits = take_matrix<A>(arena, z.C, round_up(capacity, kLanes<A>));
  return s;
}

// Sets the unit that is always 1, whose weight is the bias; once per workspace.
template <class A>
void set_ones(const Activations<A>& s, const Sizes& z) {
  for (int64_t l = 1; l <= z.L; ++l)
    for (int64_t n = 0; n < s.units[l].step; ++n) s.units[l].row(z.inputs(l))[n] = A{1};
}

MLPKERN_INLINE void read_example(const Examples& e, int64_t T, int64_t row, int64_t* ids,
                                 int64_t* target) {
  for (int64_t t = 0; t < T; ++t)
    ids[t] = read_index(e.input_type, e.inputs, row * e.input_row_stride + t * e.input_col_stride);
  *target = read_index(e.target_type, e.targets, row * e.target_stride);
}

// x[n] = the rows of the table for ids[n], side by side, then the 1 of the bias.
template <class A>
void gather(const Activations<A>& s, const Sizes& z, const A* embedding, Range rows) {
  constexpr int64_t L = kLanes<A>;
  const int64_t K = z.inputs(0), D = z.D, last = (D - 1) / L * L;  // the last vector's column
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    A* x_n = s.x.row(n);
    for (int64_t t = 0; t < z.T; ++t) {
      const A* from = embedding + s.ids[n * z.T + t] * D;
      A* to = x_n + t * D;
      for (int64_t d = 0; d < last; d += L) store(to + d, load(from + d));
      store(to + last, load_part(from + last, D - last));  // past D: the next row overwrites it
    }
    store(x_n + K, vec_t<A>{});
    x_n[K] = A{1};
  }
}

// The embedded input with the batch in the lanes, zeros past the last row.
template <class A>
void transpose_input(const Activations<A>& s, const Sizes& z, Range rows) {
  pack_transposed(s.units[0].data + rows.begin, s.units[0].step, s.x.row(rows.begin), s.x.step,
                  rows.end - rows.begin, z.inputs(0) + 1);
}

// Tiles of the outputs of layer l.
inline RowTiles output_tiles(const Sizes& z, int64_t l) { return RowTiles(z.outputs(l)); }

template <class A, class Finish>
MLPKERN_INLINE void multiply_layer(const Activations<A>& s, const Sizes& z, const Weights<A>& w,
                                   int64_t l, Range tiles, Range panels, const Finish& finish,
                                   const Matrix<A>& to) {
  const Matrix<A>& weight = w.layers[l];
  Operands<A> of{weight.data, 1, weight.step, z.inputs(l) + 1, s.units[l].data, s.units[l].step};
  if (z.by_rows(l)) {
    of.row_step = weight.step;
    of.k_step = 1;
  } else if (w.tiles[l]) {
    of.a = w.tiles[l];
    of.k_step = kTileRows;
    of.tile_step = tile_step<A>(z, l);
  }
  product(output_tiles(z, l), tiles, of, s.panels(), panels, finish, to);
}

// Calls body(finish), where finish(row, column, values) stores tanh of the values. With a dropout
// mask it stores mask tanh, and the mask becomes mask (1 - tanh^2), for the backward pass.
template <class A, class Body>
MLPKERN_INLINE void with_activation(const Matrix<A>& units, const Matrix<A>& mask,
                                    const Body& body) {
  if (mask.data)
    body([to = units, mask](int64_t row, int64_t column, vec_t<A> value) {
      const vec_t<A> y = tanh(value), kept = load(mask.row(row) + column);
      store(mask.row(row) + column, kept * (A{1} - y * y));
      store(to.row(row) + column, y * kept);
    });
  else
    body([to = units](int64_t row, int64_t column, vec_t<A> value) {
      store(to.row(row) + column, tanh(value));
    });
}

// units[l + 1] = tanh(weight_l units[l]), with the dropout of with_activation.
template <class A>
void forward_hidden(const Activations<A>& s, const Sizes& z, const Weights<A>& w, int64_t l,
                    Range tiles, Range panels, const Matrix<A>& mask = {}) {
  with_activation(s.units[l + 1], mask, [&](const auto& finish) {
    multiply_layer(s, z, w, l, tiles, panels, finish, s.units[l + 1]);
  });
}

template <class A>
void forward_logits(const Activations<A>& s, const Sizes& z, const Weights<A>& w, Range tiles,
                    Range panels) {
  const Matrix<A> to = s.logits;
  multiply_layer(
      s, z, w, z.L, tiles, panels,
      [to](int64_t row, int64_t column, vec_t<A> value) { store(to.row(row) + column, value); },
      to);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
