// The gradient of the embedding table in train_steps: rows of dx summed per id, in order of the
// batch, and the optimizer's step on the rows. The ids are dealt out to kShares, each of which may
// be a thread's; an id belongs to one share, so nothing collides and every sum has one order.
#pragma once

#include "cpu/mlp.h"
#include "cpu/optimizer.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kShares = 4;

template <class A>
struct EmbeddingGradient {
  int64_t V, D;
  Matrix<A> sums;    // (V, D), valid where stamp[id] is the step's
  int64_t* stamps;   // (V,)
  int64_t* touched;  // (kShares, ceil(V / kShares)) ids of this step
  int64_t* counts;   // (kShares,)
  int64_t touched_step;

  // Only these ids have a gradient: of every step anew.
  void begin_step(int64_t share) { counts[share] = 0; }

  // Adds the rows of dx, (rows, T*D), of ids (rows, T).
  void add(int64_t share, int64_t now, const int64_t* ids, const Matrix<A>& dx, int64_t rows,
           int64_t T) {
    constexpr int64_t L = kLanes<A>;
    for (int64_t n = 0; n < rows; ++n)
      for (int64_t t = 0; t < T; ++t) {
        const int64_t id = ids[n * T + t];
        if (id % kShares != share) continue;
        const A* from = dx.row(n) + t * D;  // past D: the next row's, in padding never used
        A* to = sums.row(id);
        if (stamps[id] != now) {
          stamps[id] = now;
          touched[share * touched_step + counts[share]++] = id;
          for (int64_t d = 0; d < D; d += L) store(to + d, load(from + d));
        } else {
          for (int64_t d = 0; d < D; d += L) store(to + d, load(to + d) + load(from + d));
        }
      }
  }

  double sum_of_squares() const {
    double total = 0;
    for (int64_t share = 0; share < kShares; ++share)
      for (int64_t i = 0; i < counts[share]; ++i) {
        const A* row = sums.row(touched[share * touched_step + i]);
        for (int64_t d = 0; d < D; ++d) total += static_cast<double>(row[d]) * row[d];
      }
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
      store_part(parameters.embedding + at, updated<rule>(c, w, g, m, v, true), count);
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
    if (sparse)
      for (int64_t i = 0; i < counts[share]; ++i)
        update_row<rule>(c, touched[share * touched_step + i], true, parameters, first, second);
    else
      for (int64_t id = share; id < V; id += kShares)
        update_row<rule>(c, id, stamps[id] == now, parameters, first, second);
  }
};

template <class A>
EmbeddingGradient<A> take_embedding_gradient(Arena& arena, const Sizes& z) {
  EmbeddingGradient<A> g;
  g.V = z.V;
  g.D = z.D;
  g.sums = take_matrix<A>(arena, z.V, z.D);
  g.stamps = arena.take<int64_t>(z.V);
  g.touched_step = ceil_div(z.V, kShares);
  g.touched = arena.take<int64_t>(kShares * g.touched_step);
  g.counts = arena.take<int64_t>(kShares);
  return g;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
