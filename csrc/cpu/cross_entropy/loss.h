// The forward of cross_entropy: one read of the logits. A piece of rows at a time: the maximum and
// the sum of exponentials of each row (vector/row_sums.h), then the logarithms of the whole piece
// as vectors, then the losses.
#pragma once

#include "cpu/cross_entropy/rows.h"
#include "cpu/threads/parallel.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

struct PieceSums {
  double loss, weight;
};

// sum_c w[c] (x[c] - m - log_sum) t[c], with t = 1 where probability is null.
template <class T>
acc_t<T> weighted_log_probability(const T* x, const T* probability, const ClassWeights<T>& weight,
                                  int64_t C, acc_t<T> m, acc_t<T> log_sum) {
  using A = acc_t<T>;
  const vec_t<A> max = splat(m), log_z = splat(log_sum);
  vec_t<A> sum = {};
  for_classes<A>(
      C,
      [&](int64_t c) {
        vec_t<A> term = weight.at(c) * ((load(x + c) - max) - log_z);
        if (probability) term *= load(probability + c);
        sum += term;
      },
      [&](int64_t c, int64_t lanes) {
        vec_t<A> term = weight.part(c, lanes) * ((load_part(x + c, lanes) - max) - log_z);
        if (probability) term *= load_part(probability + c, lanes);
        sum += first_lanes<A>(term, lanes, A{0});
      });
  return reduce_add(sum);
}

// Losses of rows [begin, end) whose targets are ids, from their maxima and log sums, and their sum.
// Returns the first row with a target out of range, or -1.
template <class T>
int64_t losses_of_ids(const CrossEntropyForward& a, const Options<T>& o, int64_t begin, int64_t end,
                      PieceSums& sum) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const A* maxima = static_cast<const A*>(a.lse);
  const A* log_sums = maxima + a.N;
  vec_t<A> loss_sum = {}, weight_sum = {};
  for (int64_t n = begin; n < end; n += L) {
    const int64_t count = end - n < L ? end - n : L;
    const TargetGroup<T> target(a, o.weight, n, count);
    if (target.bad >= 0) return n + target.bad;
    const vec_t<A> weight = load(target.weight);
    const vec_t<A> log_p =
        (load(target.logit) - load_up_to(maxima + n, count)) - load_up_to(log_sums + n, count);
    vec_t<A> row_loss = log_p * weight * -o.hard;
    if (o.smooth != 0)
      for (int64_t i = 0; i < count; ++i)
        row_loss[i] -=
            o.smooth_each * weighted_log_probability<T>(
                                static_cast<const T*>(a.input) + (n + i) * a.input_row_stride,
                                nullptr, o.weight, a.C, maxima[n + i], log_sums[n + i]);
    row_loss = load(target.counted) > 0 ? row_loss : vec_t<A>{};
    loss_sum += row_loss;
    weight_sum += weight;
    if (a.reduction == Reduction::none)
      for (int64_t i = 0; i < count; ++i)
        store_scalar(static_cast<T*>(a.loss) + n + i, row_loss[i]);
  }
  sum = {reduce_add(loss_sum), reduce_add(weight_sum)};
  return -1;
}

// The same for class probabilities.
template <class T>
void losses_of_probabilities(const CrossEntropyForward& a, const Options<T>& o, int64_t begin,
                             int64_t end, PieceSums& sum) {
  using A = acc_t<T>;
  const A* maxima = static_cast<const A*>(a.lse);
  const A* log_sums = maxima + a.N;
  for (int64_t n = begin; n < end; ++n) {
    const T* x = static_cast<const T*>(a.input) + n * a.input_row_stride;
    const T* t = static_cast<const T*>(a.target) + n * a.target_row_stride;
    A row_loss = -o.hard * weighted_log_probability(x, t, o.weight, a.C, maxima[n], log_sums[n]);
    if (o.smooth != 0)
      row_loss -= o.smooth_each *
                  weighted_log_probability<T>(x, nullptr, o.weight, a.C, maxima[n], log_sums[n]);
    if (a.reduction == Reduction::none) store_scalar(static_cast<T*>(a.loss) + n, row_loss);
    sum.loss += row_loss;
    sum.weight += 1;
  }
}

template <class T>
int64_t forward(const CrossEntropyForward& a) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const Options<T> o(a);
  A* maxima = static_cast<A*>(a.lse);
  A* log_sums = maxima + a.N;
  T* loss = static_cast<T*>(a.loss);
  auto* sums = static_cast<PieceSums*>(a.workspace);
  const int64_t step = rows_per_piece(a), pieces = ceil_div(a.N, step);
  int64_t bad = -1;

  parallel_for_work(pieces, kClassMultiplyAdds * a.N * a.C, [&](int64_t piece) {
    const int64_t begin = piece * step, end = begin + step < a.N ? begin + step : a.N;
    row_sums(static_cast<const T*>(a.input) + begin * a.input_row_stride, a.input_row_stride,
             end - begin, a.C, maxima + begin, log_sums + begin);
    for (int64_t n = begin; n < end; n += L) {
      const int64_t count = end - n < L ? end - n : L;
      store_part(log_sums + n, log_of_sum(load_up_to(log_sums + n, count)), count);
    }
    PieceSums sum = {0, 0};
    if (a.target_is_probability) {
      losses_of_probabilities(a, o, begin, end, sum);
    } else {
      const int64_t first_bad = losses_of_ids(a, o, begin, end, sum);
      if (first_bad >= 0) report_first(&bad, first_bad);
    }
    sums[piece] = sum;
  });
  if (bad >= 0) return bad;

  PieceSums total = {0, 0};
  for (int64_t piece = 0; piece < pieces; ++piece) {
    total.loss += sums[piece].loss;
    total.weight += sums[piece].weight;
  }
  *static_cast<A*>(a.total_weight) = static_cast<A>(total.weight);
  if (a.reduction == Reduction::sum) store_scalar(loss, static_cast<A>(total.loss));
  if (a.reduction == Reduction::mean) store_scalar(loss, static_cast<A>(total.loss / total.weight));
  return -1;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
