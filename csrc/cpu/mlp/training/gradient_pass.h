// The gradients of the parameters from the dz and dx of a block, and the optimizer's updates.
#pragma once

#include <cmath>

#include "cpu/mlp/training/split.h"
#include "cpu/mlp/training/trainer_state.h"
#include "cpu/mlp/training/weight_update.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Calls body(l, parts) for all weights and share(i) for the shares of the embedding, unless they
// are frozen.
template <class A, class Body, class Share>
inline void for_weights(TrainerState<A>& t, const Body& body, const Share& share) {
  const bool shares_of_embedding = !t.frozen.embedding();
  if (!t.threads) {
    if (shares_of_embedding) share(0);
    for (int64_t l = 0; l <= t.z.L; ++l)
      if (!t.frozen.layer(l)) body(l, Range{0, t.parts(l)});
    return;
  }
  // Each thread takes a part of every weight: equal work, and the same weights in every step.
  const int64_t threads = max_threads();
  parallel_for(threads, [&](int64_t thread) {
    const auto part = [&](int64_t count) {
      return Range{count * thread / threads, count * (thread + 1) / threads};
    };
    const Range shares = part(shares_of_embedding ? kMaxShares : 0);
    for (int64_t i = shares.begin; i < shares.end; ++i) share(i);
    for (int64_t l = 0; l <= t.z.L; ++l)
      if (!t.frozen.layer(l)) body(l, part(t.parts(l)));
  });
}

template <class A>
inline bool sparse(const TrainerState<A>& t) {
  return t.rule == Rule::sgd && !t.has_decay;
}

// Where the bias is in packed weight l, -1 for the axis along which it extends.
template <class A>
inline int64_t bias_row(const TrainerState<A>& t, int64_t l) {
  return t.z.by_rows(l) ? -1 : t.z.inputs(l);
}
template <class A>
inline int64_t bias_column(const TrainerState<A>& t, int64_t l) {
  return t.z.by_rows(l) ? t.z.inputs(l) : -1;
}

template <Rule rule, class A>
inline WeightUpdate<A, rule> weight_update(const TrainerState<A>& t, const StepConstants<A>& c,
                                           int64_t l) {
  return {c,
          t.parameters.layers[l],
          t.first.layers[l],
          t.second.layers[l],
          bias_row(t, l),
          bias_column(t, l)};
}

// finish(row, column, values) for a part of dweight_l.
template <class A, class Finish>
inline void for_gradient(const TrainerState<A>& t, int64_t l, Range part, const Finish& finish) {
  if (t.z.folds && l == 0)
    folded_weight_gradient(t.fold_gradient, t.fold, t.z, part, finish);
  else
    weight_gradient(t.activations, t.masked, t.z, l, part, finish);
}

template <class A>
inline void add_to_embedding(TrainerState<A>& t, int64_t share, int64_t s) {
  if (t.z.folds)
    t.embedding.add(share, s, t.fold.ids, 1, t.fold_gradient.embedding, t.fold.count);
  else
    t.embedding.add(share, s, t.activations.ids, t.z.T, t.masked.dx[0], t.activations.rows);
}

template <Rule rule, class A>
inline void update_from_block(TrainerState<A>& t, const StepConstants<A>& c, int64_t s) {
  for_weights(
      t, [&](int64_t l, Range part) { for_gradient(t, l, part, weight_update<rule>(t, c, l)); },
      [&](int64_t share) {
        add_to_embedding(t, share, s);
        t.embedding.template update<rule>(c, share, s, sparse(t), t.parameters, t.first, t.second);
      });
}

template <class A>
inline void add_gradients(TrainerState<A>& t, int64_t s, int64_t begin) {
  for_weights(
      t,
      [&](int64_t l, Range part) {
        const bool whole = t.z.folds && l == 0;  // the sums of the fold are over the whole batch
        if (whole && !t.last_block(begin)) return;
        const Matrix<A> to = t.gradients.layers[l];
        const bool first = whole || begin == 0;
        for_gradient(t, l, part, [to, first](int64_t row, int64_t column, vec_t<A> g) {
          A* at = to.row(row) + column;
          store(at, first ? g : load(at) + g);
        });
      },
      [&](int64_t share) {
        if (!t.z.folds || t.last_block(begin)) add_to_embedding(t, share, s);
      });
}

template <Rule rule, class A>
inline void update_from_gradients(TrainerState<A>& t, const StepConstants<A>& c, int64_t s) {
  for_weights(
      t,
      [&](int64_t l, Range part) {
        const int64_t rows = t.z.weight_rows(l), count = t.parts(l);
        const Matrix<A> from = t.gradients.layers[l];
        const WeightUpdate<A, rule> update = weight_update<rule>(t, c, l);
        const auto for_vectors = [&](const auto& body) {
          for (int64_t row = rows * part.begin / count; row < rows * part.end / count; ++row)
            for (int64_t column = 0; column < t.z.weight_columns(l); column += kLanes<A>)
              body(row, column, load(from.row(row) + column));
        };
        if (t.frozen.part_of(l))
          for_vectors(PartUpdate<A, rule>{update, t.frozen.bias(l)});
        else
          for_vectors(update);
      },
      [&](int64_t share) {
        t.embedding.template update<rule>(c, share, s, sparse(t), t.parameters, t.first, t.second);
      });
}

// Zeroes the gradient of the frozen part of layer l.
template <class A>
inline void clear_frozen(const TrainerState<A>& t, int64_t l) {
  for (int64_t row = 0; row < t.z.weight_rows(l); ++row)
    for (int64_t column = 0; column < t.z.weight_columns(l); column += kLanes<A>) {
      const ints_t<A> bias = bias_lanes<A>(row, column, bias_row(t, l), bias_column(t, l));
      A* const at = t.gradients.layers[l].row(row) + column;
      store(at, (t.frozen.bias(l) ? bias : ~bias) ? vec_t<A>{} : load(at));
    }
}

// The factor of torch.nn.utils.clip_grad_norm_.
template <class A>
inline double clip_scale(const TrainerState<A>& t) {
  if (!std::isfinite(t.a.max_grad_norm)) return 1;
  double sum = t.embedding.sum_of_squares();
  for (int64_t l = 0; l <= t.z.L; ++l) {
    if (t.frozen.layer(l)) continue;
    if (t.frozen.part_of(l)) clear_frozen(t, l);
    for (int64_t r = 0; r < t.z.weight_rows(l); ++r) {
      const A* row = t.gradients.layers[l].row(r);
      vec_t<A> squares = {};  // the padding of a row is zero
      for (int64_t c = 0; c < t.z.weight_columns(l); c += kLanes<A>)
        squares += load(row + c) * load(row + c);
      sum += static_cast<double>(reduce_add(squares));
    }
  }
  const double scale = t.a.max_grad_norm / (std::sqrt(sum) + 1e-6);
  return scale >= 1 ? 1 : scale;  // a norm of nan gives gradients of nan, as in torch
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
