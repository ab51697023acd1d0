// A model in the form the kernels of train_steps and evaluate work on: packed weights, and the
// activations of a block of rows.
//
// Weights are padded with zeros to whole vectors and carry their bias:
//   by rows      (out, in + 1): row o is unit o, the bias is the last column
//   by columns   (in + 1, out): the transpose, so that a row is a vector of outputs; the bias is
//                the last row
// Layer 0 goes by rows unless it is folded (fold.h), the others by columns, except for weights
// too large for the caches.
// Activations are kept with the rows of the batch in the lanes, (units + 1, rows), the last unit
// always 1. So every product of a step has one form (vector/gemm.h): scalars of one matrix,
// broadcast, times vectors of another.
//   forward     z (out, n) = weight  x (in, n)
//   backward    by columns: dx (in, n) = weight^T  dz (out, n)
//               by rows:    dx (n, in) = dz (n, out)  weight
//   gradient    by columns: dweight (i, o) = x (i, n)  dz (n, o)
//               by rows:    dweight (o, i) = dz (o, n)  x (n, i)
// A matrix with the batch in the rows is a transposed copy, except for the embedded input, which is
// gathered that way. By rows, every matrix is read along its rows, which suits memory beyond the
// caches; by columns, a step needs one transposition fewer.
#pragma once

#include <cstring>

#include "cpu/mlp/product.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Hands out parts of a workspace, each on a cache line; with a null pointer it only counts.
class Arena {
 public:
  explicit Arena(void* memory) : base_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(int64_t count) {
    T* part = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
    return part;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// The step between rows of a matrix that is read down its columns: above 512 bytes an odd number of
// vectors, so that a tall column does not fall into a few cache sets.
template <class A>
int64_t step_for(int64_t columns) {
  const int64_t vectors = ceil_div(columns, kLanes<A>);
  return (vectors * kVectorBytes > 512 ? vectors | 1 : vectors) * kLanes<A>;
}

template <class A>
Matrix<A> take_matrix(Arena& arena, int64_t rows, int64_t columns) {
  const int64_t step = step_for<A>(columns);
  // one vector more: rows are read and written by whole vectors from any column on
  return {arena.take<A>(rows * step + kLanes<A>), step};
}

constexpr int64_t kFarWeight = 1 << 22;  // elements: 16 MB, more than a core has of cache

// Sizes of a model. Layer l has inputs(l) inputs and outputs(l) outputs; layer L gives the logits.
struct Sizes {
  int64_t V, T, D, C, L;
  const int64_t* hidden;
  bool folds;  // layer 0

  explicit Sizes(const MLP& m, bool folds_ = false)
      : V(m.V), T(m.T), D(m.D), C(m.C), L(m.L), hidden(m.hidden), folds(folds_) {}
  int64_t inputs(int64_t l) const { return l == 0 ? T * D : hidden[l - 1]; }
  int64_t outputs(int64_t l) const { return l == L ? C : hidden[l]; }
  bool by_rows(int64_t l) const { return l == 0 ? !folds : inputs(l) * outputs(l) >= kFarWeight; }
  // of the packed weight, its bias included
  int64_t weight_rows(int64_t l) const { return by_rows(l) ? outputs(l) : inputs(l) + 1; }
  int64_t weight_columns(int64_t l) const { return by_rows(l) ? inputs(l) + 1 : outputs(l); }
  int64_t multiply_adds() const {  // of one row, forward
    int64_t sum = 0;
    for (int64_t l = 0; l <= L; ++l) sum += inputs(l) * outputs(l);
    return sum;
  }
};

constexpr int64_t kMaxLayers = 64;  // hidden layers and the output

// The parameters of one model, or anything of their shape: moments, gradients.
template <class A>
struct Weights {
  A* embedding = nullptr;  // (V, D): the caller's own memory, or a buffer
  Matrix<A> layers[kMaxLayers];
  A* tiles[kMaxLayers] = {};  // of a layer by columns, where there is a copy for the forward pass
};

template <class A>
Weights<A> take_weights(Arena& arena, const Sizes& z) {
  Weights<A> w;
  for (int64_t l = 0; l <= z.L; ++l)
    w.layers[l] = take_matrix<A>(arena, z.weight_rows(l), z.weight_columns(l));
  return w;
}

// The copy of layer l by columns in which the forward pass reads each of its tiles in one piece,
// (inputs + 1, kTileRows).
template <class A>
int64_t tile_step(const Sizes& z, int64_t l) {
  // a vector more: rows are written by whole vectors
  return round_up((z.inputs(l) + 1) * kTileRows, kLanes<A>) + kLanes<A>;
}

template <class A>
void copy_tiles(const Weights<A>& w, const Sizes& z, int64_t l, Range tiles) {
  const RowTiles cut(z.outputs(l));
  for (int64_t t = tiles.begin; t < tiles.end; ++t) {
    const A* from = w.layers[l].data + cut.begin(t);
    A* to = w.tiles[l] + t * tile_step<A>(z, l);
    for (int64_t k = 0; k <= z.inputs(l); ++k)
      for (int64_t r = 0; r < kTileRows; r += kLanes<A>)  // the excess is overwritten
        store(to + k * kTileRows + r, load(from + k * w.layers[l].step + r));
  }
}

// The caller's tensors of model m, see MLP.
template <class A>
struct Tensors {
  void* const* pointers;
  const int64_t* strides;
  int64_t m;
  A* at(int64_t i) const { return static_cast<A*>(pointers[i]) + m * strides[i]; }
  A* weight(int64_t l) const { return at(1 + 2 * l); }
  A* bias(int64_t l) const { return at(2 + 2 * l); }
};

// Copies the caller's tensors of some units of layer l, whole vectors of them, into packed form.
template <class A>
void pack_units(const Weights<A>& w, const Sizes& z, const Tensors<A>& from, int64_t l,
                Range units) {
  const Matrix<A> to = w.layers[l];
  const int64_t in = z.inputs(l), out = z.outputs(l), columns = z.weight_columns(l);
  const int64_t first = units.begin, count = units.end - first;
  const A *weight = from.weight(l) + first * in, *bias = from.bias(l);
  if (z.by_rows(l)) {
    pack_rows(to.row(first), to.step, weight, in, count, in);
    for (int64_t o = first; o < units.end; ++o) {
      to.row(o)[in] = bias[o];
      for (int64_t c = columns; c < to.step; ++c) to.row(o)[c] = A{0};
    }
    return;
  }
  pack_transposed(to.data + first, to.step, weight, in, count, in);
  for (int64_t o = first; o < units.end; ++o) to.row(in)[o] = bias[o];
  if (units.end == out)
    for (int64_t r = 0; r <= in; ++r)
      for (int64_t c = columns; c < to.step; ++c) to.row(r)[c] = A{0};
}

// The inverse of pack_units, into the caller's weight and bias of layer l; null for a frozen one.
template <class A>
void unpack_units(const Weights<A>& w, const Sizes& z, A* weight, A* bias, int64_t l, Range units) {
  const Matrix<A> from = w.layers[l];
  const int64_t in = z.inputs(l);
  if (z.by_rows(l)) {
    for (int64_t o = units.begin; o < units.end; ++o) {
      if (weight) std::memcpy(weight + o * in, from.row(o), static_cast<size_t>(in) * sizeof(A));
      if (bias) bias[o] = from.row(o)[in];
    }
    return;
  }
  constexpr int64_t kBlock = 16;  // of both axes, so that the transposed copy keeps its lines
  for (int64_t i0 = 0; weight && i0 < in; i0 += kBlock)
    for (int64_t o = units.begin; o < units.end; ++o)
      for (int64_t i = i0; i < in && i < i0 + kBlock; ++i) weight[o * in + i] = from.row(i)[o];
  for (int64_t o = units.begin; bias && o < units.end; ++o) bias[o] = from.row(in)[o];
}

// Copies the caller's tensors into packed form; the embedding is used in place.
template <class A>
void pack(Weights<A>& w, const Sizes& z, const Tensors<A>& from) {
  w.embedding = from.at(0);
  for (int64_t l = 0; l <= z.L; ++l) pack_units(w, z, from, l, {0, z.outputs(l)});
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
