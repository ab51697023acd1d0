// The optimizer's step on a packed weight (mlp.h), a vector at a time.
#pragma once

#include "cpu/mlp/mlp.h"
#include "cpu/mlp/training/optimizer.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// One optimizer step on a vector of a packed weight, given its gradient.
template <class A, Rule rule>
struct WeightUpdate {
  StepConstants<A> constants;
  Matrix<A> weight, first, second;
  int64_t bias_row, bias_column;  // where the bias is, -1 for the axis along which it extends

  MLPKERN_INLINE void operator()(int64_t row, int64_t column, vec_t<A> g) const {
    const vec_t<A> w = load(weight.row(row) + column);
    vec_t<A> m = {}, v = {};
    if constexpr (rule != Rule::sgd) m = load(first.row(row) + column);
    if constexpr (rule == Rule::adamw) v = load(second.row(row) + column);
    vec_t<A> decay = constants.decay;
    if constexpr (rule == Rule::adamw) {  // which leaves out the biases
      if (row == bias_row) decay = splat(A{1});
      if (bias_column >= column && bias_column < column + kLanes<A>)
        decay[bias_column - column] = A{1};
    }
    store(weight.row(row) + column, updated<rule>(constants, w, g, m, v, decay));
    if constexpr (rule != Rule::sgd) store(first.row(row) + column, m);
    if constexpr (rule == Rule::adamw) store(second.row(row) + column, v);
  }
};

// The lanes of a packed weight from (row, column) on that hold its bias.
template <class A>
ints_t<A> bias_lanes(int64_t row, int64_t column, int64_t bias_row, int64_t bias_column) {
  ints_t<A> lanes = {};
  if (row == bias_row) lanes = ~lanes;
  if (bias_column >= column && bias_column < column + kLanes<A>) lanes[bias_column - column] = -1;
  return lanes;
}

// The same for a layer where only the bias, or only the weight, is trained.
template <class A, Rule rule>
struct PartUpdate {
  WeightUpdate<A, rule> update;
  bool keeps_bias;

  void operator()(int64_t row, int64_t column, vec_t<A> g) const {
    constexpr int kKept = rule == Rule::sgd ? 1 : rule == Rule::adamw ? 3 : 2;
    const Matrix<A> matrices[] = {update.weight, update.first, update.second};
    vec_t<A> old[kKept];
    for (int i = 0; i < kKept; ++i) old[i] = load(matrices[i].row(row) + column);
    update(row, column, g);
    const ints_t<A> bias = bias_lanes<A>(row, column, update.bias_row, update.bias_column);
    const ints_t<A> kept = keeps_bias ? bias : ~bias;
    for (int i = 0; i < kKept; ++i) {
      A* const at = matrices[i].row(row) + column;
      store(at, kept ? old[i] : load(at));
    }
  }
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
