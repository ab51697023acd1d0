// A model in the form the kernels of train_steps and evaluate work on: packed weights, and the
// activations of a block of rows.
//
// Weights are padded with zeros to whole vectors and carry their bias:
//   by rows      (out, in + 1): row o is unit o, the bias is the last column
//   by columns   (in + 1, out): the transpose, so that a row is a vector of outputs; the bias is
//                the last row
// Layer 0 goes by rows unless it is folded (mlp_fold.h), the others by columns, except for weights
// too large for the caches.
// Activations are kept with the rows of the batch in the lanes, (units + 1, rows), the last unit
// always 1. So every product of a step has one form (gemm.h): scalars of one matrix, broadcast,
// times vectors of another.
//   forward     z (out, n) = weight  x (in, n)
//   backward    by columns: dx (in, n) = weight^T  dz (out, n)
//               by rows:    dx (n, in) = dz (n, out)  weight
//   gradient    by columns: dweight (i, o) = x (i, n)  dz (n, o)
//               by rows:    dweight (o, i) = dz (o, n)  x (n, i)
// What has the batch in the rows there is transposed once, except for the embedded input, which is
// gathered that way. By rows every matrix is walked along its rows, which far memory demands; by
// columns one transposition fewer is needed.
#pragma once

#include <cstring>

#include "cpu/gemm.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Hands out parts of a workspace, each on a cache line. Without memory it only counts.
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

// Rows `step` elements apart.
template <class A>
struct Matrix {
  A* data = nullptr;
  int64_t step = 0;
  MLPKERN_INLINE A* row(int64_t r) const { return data + r * step; }
};

// A step for rows that are walked down a column: past 512 bytes an odd number of vectors, so that
// tall columns do not fall into a few cache sets.
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

constexpr int64_t kFarWeight = 1 << 22;  // elements: 16 MB, beyond what a core has for itself

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
};

template <class A>
Weights<A> take_weights(Arena& arena, const Sizes& z) {
  Weights<A> w;
  for (int64_t l = 0; l <= z.L; ++l)
    w.layers[l] = take_matrix<A>(arena, z.weight_rows(l), z.weight_columns(l));
  return w;
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

// Copies the caller's tensors into packed form. The embedding is used where it lies.
template <class A>
void pack(Weights<A>& w, const Sizes& z, const Tensors<A>& from) {
  w.embedding = from.at(0);
  for (int64_t l = 0; l <= z.L; ++l) {
    const Matrix<A> to = w.layers[l];
    const int64_t in = z.inputs(l), out = z.outputs(l), columns = z.weight_columns(l);
    const A *weight = from.weight(l), *bias = from.bias(l);
    if (z.by_rows(l)) {
      pack_rows(to.data, to.step, weight, in, out, in);
      for (int64_t o = 0; o < out; ++o) to.row(o)[in] = bias[o];
    } else {
      pack_transposed(to.data, to.step, weight, in, out, in);
      for (int64_t o = 0; o < out; ++o) to.row(in)[o] = bias[o];
    }
    for (int64_t r = 0; r < z.weight_rows(l); ++r)
      for (int64_t c = columns; c < to.step; ++c) to.row(r)[c] = A{0};
  }
}

// The reverse of pack, except for the embedding, which was changed in place.
template <class A>
void unpack(const Weights<A>& w, const Sizes& z, const Tensors<A>& to) {
  for (int64_t l = 0; l <= z.L; ++l) {
    const Matrix<A> from = w.layers[l];
    const int64_t in = z.inputs(l), out = z.outputs(l);
    A *weight = to.weight(l), *bias = to.bias(l);
    if (z.by_rows(l)) {
      for (int64_t o = 0; o < out; ++o) {
        std::memcpy(weight + o * in, from.row(o), static_cast<size_t>(in) * sizeof(A));
        bias[o] = from.row(o)[in];
      }
      continue;
    }
    constexpr int64_t kBlock = 16;  // of both axes, so that the transposed copy keeps its lines
    for (int64_t i0 = 0; i0 < in; i0 += kBlock)
      for (int64_t o = 0; o < out; ++o)
        for (int64_t i = i0; i < in && i < i0 + kBlock; ++i) weight[o * in + i] = from.row(i)[o];
    for (int64_t o = 0; o < out; ++o) bias[o] = from.row(in)[o];
  }
}

// ---- products ----

// Terms of one chunk of a sum: 7 KB of a and 16 KB of b, so that the next panel of b reaches L1
// before the last one leaves it (152 GFLOP/s a core at 1024 x 1024; 142 with 200 or 384 terms).
constexpr int64_t kMostTerms = 128;
constexpr int64_t kFarStep = 2048;    // elements, from here on the hardware prefetches no next row
constexpr int64_t kDeepTerms = 1024;  // of b, with kGroupPanels panels 1 MB
constexpr int64_t kGroupPanels = 8;   // column panels that share a tile's rows in L1

// A range [begin, end).
struct Range {
  int64_t begin, end;
};

// A tile of exactly Rows rows and kTileVectors vectors whose depth is one chunk: its sums go to
// finish out of registers, since with little depth the way through memory takes as long as the
// product. The copy of finish lets its pointers stay in registers between the stores.
template <class A, int Rows, class Finish>
__attribute__((noinline)) void finish_tile(int64_t row, int64_t column, int64_t depth, const A* a,
                                           int64_t row_step, int64_t k_step, const A* b,
                                           int64_t b_step, const Finish& given) {
  const Finish finish = given;
  sum_terms<A, Rows, kTileVectors>(
      depth, a, row_step, k_step, b, b_step,
      [&](int r, int v, vec_t<A> sum) { finish(row + r, column + v * kLanes<A>, sum); }, [] {});
}

// Calls finish_tile for a tall tile; false for the others, for which it is not compiled.
template <class A, class... Arguments>
MLPKERN_INLINE bool finish_tall_tile(int64_t height, const Arguments&... arguments) {
  constexpr int R = kTileRows;
  if (height == R) return finish_tile<A, R>(arguments...), true;
  if (height == R - 1) return finish_tile<A, R - 1>(arguments...), true;
  if constexpr (R > 8) {
    if (height == R - 2) return finish_tile<A, R - 2>(arguments...), true;
    if (height == R - 3) return finish_tile<A, R - 3>(arguments...), true;
  }
  return false;
}

// finish(row, column, values) for every vector of  a b,  where a has `cut.rows` rows, element
// (r, k) at a[r * row_step + k * k_step], and b rows k of vectors, `b_step` apart. Covers the tiles
// and column panels given. finish holds its state by value. Each sum is formed in chunks of
// equal size, at most kMostTerms, in order.
//
// Rows of a that are not adjacent in k are packed where several panels use them. With `partial`, a
// matrix like the result, the terms are cut once more, outside all other loops, so that a part of b
// stays in L2 for all tiles; the unfinished sums wait there.
template <class A, class Finish>
MLPKERN_INLINE void product(const RowTiles& cut, Range tiles, const A* a, int64_t row_step,
                            int64_t k_step, int64_t depth, const A* b, int64_t b_step,
                            const ColumnPanels<A>& panels, Range columns, const Finish& finish,
                            const Matrix<A>& partial = {}) {
  constexpr int64_t L = kLanes<A>;
  Tile<A> sums[kGroupPanels];
  alignas(64) A packed[kTileRows * kMostTerms + L];
  const int64_t terms = ceil_div(depth, depth > 0 ? ceil_div(depth, kMostTerms) : 1);
  const int64_t part = partial.data ? round_up(kDeepTerms, terms) : depth;

  // The sums of one tile for a group of panels over the terms ks.
  const auto run_tile = [&](int64_t t, Range group, Range ks) {
    const int64_t row = cut.begin(t), height = cut.height(t);
    const auto waiting = [&](int64_t r, int64_t p, int64_t v) {
      return partial.row(row + r) + p * kTileColumns<A> + v * L;
    };
    const auto for_sums = [&](const auto& body) {
      for (int64_t p = group.begin; p < group.end; ++p)
        for (int64_t r = 0; r < height; ++r)
          for (int64_t v = 0; v < panels.vectors(p); ++v)
            body(sums[p - group.begin].row(r) + v * L, waiting(r, p, v));
    };
    if (ks.begin > 0) for_sums([](A* sum, const A* from) { store(sum, load(from)); });
    for (int64_t done = ks.begin; done == 0 || done < ks.end; done += terms) {
      const int64_t chunk = ks.end - done < terms ? ks.end - done : terms;
      const bool complete = done + chunk >= depth;
      const A* a_chunk = a + row * row_step + done * k_step;
      int64_t a_row_step = row_step, a_k_step = k_step;
      if (k_step != 1 && group.end - group.begin > 2) {
        for (int64_t k = 0; k < chunk; ++k)
          for (int64_t r = 0; r < height; r += L)  // past the height: the next k writes again
            store(packed + k * height + r, load(a_chunk + k * k_step + r));
        a_chunk = packed;
        a_row_step = 1;
        a_k_step = height;
      }
      for (int64_t p = group.begin; p < group.end; ++p) {
        Tile<A>& sum = sums[p - group.begin];
        const int64_t column = p * kTileColumns<A>, vectors = panels.vectors(p);
        const A* b_chunk = b + done * b_step + column;
        if (b_step >= kFarStep && t == tiles.begin && !complete)  // each row in a page of its own
          for (int64_t k = terms; k < 2 * terms && done + k < depth; ++k)
            for (int64_t c = 0; c < vectors; ++c)
              __builtin_prefetch(b_chunk + k * b_step + c * L, 0, 2);
        if constexpr (sizeof(A) == 4)
          if (depth <= kMostTerms && vectors == kTileVectors &&
              finish_tall_tile<A>(height, row, column, depth, a_chunk, a_row_step, a_k_step,
                                  b_chunk, b_step, finish))
            continue;
        multiply(sum, done == 0, height, vectors, chunk, a_chunk, a_row_step, a_k_step, b_chunk,
                 b_step);
        if (!complete) continue;
        for (int64_t r = 0; r < height; ++r)
          for (int64_t v = 0; v < vectors; ++v)
            finish(row + r, column + v * L, load(sum.row(r) + v * L));
      }
    }
    if (ks.end < depth) for_sums([](const A* sum, A* to) { store(to, load(sum)); });
  };

  for (int64_t k = 0; k == 0 || k < depth; k += part)
    for (int64_t first = columns.begin; first < columns.end; first += kGroupPanels) {
      const int64_t last = first + kGroupPanels < columns.end ? first + kGroupPanels : columns.end;
      for (int64_t t = tiles.begin; t < tiles.end; ++t)
        run_tile(t, {first, last}, {k, k + part < depth ? k + part : depth});
    }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
