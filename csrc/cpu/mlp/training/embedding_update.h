// The gradient of the embedding table in train_steps: the rows of dx summed per id, in order of the
// batch; and the optimizer's step on the rows.
//
// A small table is dense: all its sums are zeroed and all its rows updated, without a branch that
// depends on an id. A large one keeps a list of the ids of the step. With several threads every id
// belongs to one share of the work, so threads never write the same row and every sum has one
// order.
#pragma once

#include "cpu/mlp/mlp.h"
#include "cpu/mlp/training/optimizer.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kMaxShares = 4;

template <class A>
struct EmbeddingGradient {
  int64_t V, D;
  bool dense;
  int64_t shares;
  Matrix<A> sums;    // (V, D); unless the table is dense, valid where stamp[id] is that of the step
  int64_t* stamps;   // (V,)
  int64_t* touched;  // (shares, touched_step) ids of this step
  int64_t* counts;   // (shares,)
  int64_t touched_step;

  void begin_model() {
    for (int64_t id = 0; !dense && id < V; ++id) stamps[id] = -1;
  }

  void begin_step() {
    for (int64_t share = 0; share < shares; ++share) counts[share] = 0;
    for (int64_t i = 0; dense && i < V * sums.step; i += kLanes<A>)
      store(sums.data + i, vec_t<A>{});
  }

  // Adds the rows of dx, (rows, positions * D), of ids (rows, positions) that belong to the share.
  void add(int64_t share, int64_t now, const int64_t* ids, int64_t positions, const Matrix<A>& dx,
           int64_t rows) {
    constexpr int64_t L = kLanes<A>;
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t t = 0; t < positions; ++t) {
        const int64_t id = ids[n * positions + t];
        if (shares > 1 && id % shares != share) continue;
        const A* from = dx.row(n) + t * D;  // whole vectors: past D into padding, never used
        A* to = sums.row(id);
        if (!dense && stamps[id] != now) {
          stamps[id] = now;
          touched[share * touched_step + counts[share]++] = id;
          for (int64_t d = 0; d < D; d += L) store(to + d, load(from + d));
        } else {
          for (int64_t d = 0; d < D; d += L) store(to + d, load(to + d) + load(from + d));
        }
      }
  }

  // In an order that does not depend on the number of shares.
  double sum_of_squares() const {
    double sums_of[kMaxShares] = {};
    const auto add_row = [&](int64_t id) {
      double& sum = sums_of[id % kMaxShares];
      for (int64_t d = 0; d < D; ++d)
        sum += static_cast<double>(sums.row(id)[d]) * static_cast<double>(sums.row(id)[d]);
    };
    for (int64_t id = 0; dense && id < V; ++id) add_row(id);
    for (int64_t share = 0; !dense && share < shares; ++share)
      for (int64_t i = 0; i < counts[share]; ++i) add_row(touched[share * touched_step + i]);
    double total = 0;
    for (const double sum : sums_of) total += sum;
    return total;
  }

  template <Rule rule>
  void update_row(const StepConstants<A>& c, int64_t id, bool has_gradient,
                  const Weights<A>& parameters, const Weights<A>& first,
                  const Weights<A>& second) const {
    constexpr int64_t L = kLanes<A>;
    for (int64_t d = 0; d < D; d += L) {
      const int64_t at = id * D + d, count = D - d < L ? D - d : L;
      vec_t<A> m = {}, v = {};
      if constexpr (rule != Rule::sgd) m = load_part(first.embedding + at, count);
      if constexpr (rule == Rule::adamw) v = load_part(second.embedding + at, count);
      const vec_t<A> g = has_gradient ? load(sums.row(id) + d) : vec_t<A>{};
      const vec_t<A> w = load_part(parameters.embedding + at, count);
      store_part(parameters.embedding + at, updated<rule>(c, w, g, m, v, c.decay), count);
      if constexpr (rule != Rule::sgd) store_part(first.embedding + at, m, count);
      if constexpr (rule == Rule::adamw) store_part(second.embedding + at, v, count);
    }
  }

  // One optimizer step on the rows of a share; with `sparse` only on those with a gradient, for
  // rules under which the others do not change.
  template <Rule rule>
  void update(const StepConstants<A>& c, int64_t share, int64_t now, bool sparse,
              const Weights<A>& parameters, const Weights<A>& first,
              const Weights<A>& second) const {
    if (sparse && !dense)
      for (int64_t i = 0; i < counts[share]; ++i)
        update_row<rule>(c, touched[share * touched_step + i], true, parameters, first, second);
    else
      for (int64_t id = share; id < V; id += shares)
        update_row<rule>(c, id, dense || stamps[id] == now, parameters, first, second);
  }
};

// For batches of N rows.
template <class A>
EmbeddingGradient<A> take_embedding_gradient(Arena& arena, const Sizes& z, int64_t N,
                                             bool threads) {
  EmbeddingGradient<A> g;
  g.V = z.V;
  g.D = z.D;
  g.dense = z.V <= 2 * N * z.T;
  g.shares = threads ? kMaxShares : 1;
  g.sums = take_matrix<A>(arena, z.V, z.D);
  g.stamps = arena.take<int64_t>(g.dense ? 0 : z.V);
  g.touched_step = ceil_div(z.V, g.shares);
  g.touched = arena.take<int64_t>(g.dense ? 0 : z.V + kMaxShares);
  g.counts = arena.take<int64_t>(kMaxShares);
  return g;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
