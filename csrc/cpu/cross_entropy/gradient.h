// The backward of cross_entropy: one read of the logits and one write, dinput = (softmax - target)
// g in one expression per vector.
#pragma once

#include "cpu/cross_entropy/rows.h"
#include "cpu/threads/parallel.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

template <class T>
acc_t<T> total_class_weight(const ClassWeights<T>& weight, int64_t C) {
  double total = 0;
  for (int64_t c = 0; c < C; ++c) total += weight[c];
  return static_cast<acc_t<T>>(total);
}

// out[c] = a p[c] - w[c] (e + b t[c]) with p = exp(x - m - log_sum) and t = probability, or 0 where
// that is null. Without Weighted: out[c] = a p[c].
template <class T, bool Weighted>
MLPKERN_INLINE void gradient_row(T* out, const T* x, const T* probability,
                                 const ClassWeights<T>& weight, int64_t C, acc_t<T> m,
                                 acc_t<T> log_sum, acc_t<T> a, acc_t<T> b, acc_t<T> e) {
  using A = acc_t<T>;
  const vec_t<A> max = splat(m), log_z = splat(log_sum), scale = splat(a);
  const auto target_part = [&](vec_t<A> w, vec_t<A> t) { return w * (splat(e) + splat(b) * t); };
  cover_classes<A>(
      C,
      [&](int64_t c) {
        vec_t<A> g = exp_nonpositive((load(x + c) - max) - log_z) * scale;
        if (Weighted)
          g -= target_part(weight.at(c), probability ? load(probability + c) : vec_t<A>{});
        store(out + c, g);
      },
      [&](int64_t c, int64_t lanes) {
        vec_t<A> g = exp_nonpositive((load_part(x + c, lanes) - max) - log_z) * scale;
        if (Weighted)
          g -= target_part(weight.part(c, lanes),
                           probability ? load_part(probability + c, lanes) : vec_t<A>{});
        store_part(out + c, g, lanes);
      });
}

// sum_c w[c] t[c]
template <class T>
acc_t<T> weighted_mass(const T* probability, const ClassWeights<T>& weight, int64_t C) {
  using A = acc_t<T>;
  vec_t<A> sum = {};
  for_classes<A>(
      C, [&](int64_t c) { sum += weight.at(c) * load(probability + c); },
      [&](int64_t c, int64_t lanes) {
        sum +=
            first_lanes<A>(weight.part(c, lanes) * load_part(probability + c, lanes), lanes, A{0});
      });
  return reduce_add(sum);
}

// The gradient of the loss of each row: its dloss, or the only dloss, divided for a mean.
template <class T>
struct UpstreamGradient {
  const T* dloss;
  int64_t stride;
  acc_t<T> shared;
  bool per_row;

  explicit UpstreamGradient(const CrossEntropyBackward& a)
      : dloss(static_cast<const T*>(a.dloss)),
        stride(a.dloss_stride),
        shared(0),
        per_row(a.reduction == Reduction::none) {
    if (!per_row) shared = to_acc(*dloss);
    if (a.reduction == Reduction::mean) shared /= *static_cast<const acc_t<T>*>(a.total_weight);
  }
  MLPKERN_INLINE acc_t<T> operator[](int64_t n) const {
    return per_row ? to_acc(dloss[n * stride]) : shared;
  }
};

// Gradients of rows [begin, end) whose targets are ids. The class of the target is computed
// separately, for a vector of rows at once, from the unrounded p: a stored bfloat16 p has lost the
// low bits of p - 1. Returns the first row with a target out of range, or -1.
template <class T>
int64_t gradients_of_ids(const CrossEntropyBackward& a, const Options<T>& o,
                         const UpstreamGradient<T>& upstream, acc_t<T> smooth_mass, int64_t begin,
                         int64_t end) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const A* maxima = static_cast<const A*>(a.lse);
  const A* log_sums = maxima + a.N;
  for (int64_t n = begin; n < end; n += L) {
    const int64_t count = end - n < L ? end - n : L;
    const TargetGroup<T> target(a, o.weight, n, count);
    if (target.bad >= 0) return n + target.bad;
    alignas(64) A g[L] = {}, scale[L], at_target[L];
    for (int64_t i = 0; i < count; ++i) g[i] = upstream[n + i];
    const vec_t<A> weight = load(target.weight), upstream_lanes = load(g);
    const vec_t<A> one_hot = upstream_lanes * o.hard * weight;
    const vec_t<A> factor = one_hot + upstream_lanes * smooth_mass;
    const vec_t<A> p = exp_nonpositive((load(target.logit) - load_up_to(maxima + n, count)) -
                                       load_up_to(log_sums + n, count));
    store(scale, factor);
    store(at_target, (p * factor - upstream_lanes * o.smooth_each * weight) - one_hot);
    for (int64_t i = 0; i < count; ++i) {
      const T* x = static_cast<const T*>(a.input) + (n + i) * a.input_row_stride;
      T* out = static_cast<T*>(a.dinput) + (n + i) * a.C;
      if (target.y[i] < 0) {
        for (int64_t c = 0; c < a.C; ++c) store_scalar(out + c, A{0});
        continue;
      }
      if (o.smooth != 0)
        gradient_row<T, true>(out, x, nullptr, o.weight, a.C, maxima[n + i], log_sums[n + i],
                              scale[i], A{0}, g[i] * o.smooth_each);
      else
        gradient_row<T, false>(out, x, nullptr, o.weight, a.C, maxima[n + i], log_sums[n + i],
                               scale[i], A{0}, A{0});
      store_scalar(out + target.y[i], at_target[i]);
    }
  }
  return -1;
}

template <class T>
void gradients_of_probabilities(const CrossEntropyBackward& a, const Options<T>& o,
                                const UpstreamGradient<T>& upstream, acc_t<T> smooth_mass,
                                int64_t begin, int64_t end) {
  using A = acc_t<T>;
  const A* maxima = static_cast<const A*>(a.lse);
  const A* log_sums = maxima + a.N;
  for (int64_t n = begin; n < end; ++n) {
    const T* x = static_cast<const T*>(a.input) + n * a.input_row_stride;
    const T* t = static_cast<const T*>(a.target) + n * a.target_row_stride;
    const A g = upstream[n], mass = o.hard * weighted_mass(t, o.weight, a.C) + smooth_mass;
    gradient_row<T, true>(static_cast<T*>(a.dinput) + n * a.C, x, t, o.weight, a.C, maxima[n],
                          log_sums[n], g * mass, g * o.hard, g * o.smooth_each);
  }
}

template <class T>
int64_t backward(const CrossEntropyBackward& a) {
  using A = acc_t<T>;
  const Options<T> o(a);
  const UpstreamGradient<T> upstream(a);
  const A smooth_mass = o.smooth != 0 ? o.smooth_each * total_class_weight(o.weight, a.C) : A{0};
  const int64_t step = rows_per_piece(a), pieces = ceil_div(a.N, step);
  int64_t bad = -1;
  parallel_for_work(pieces, kClassMultiplyAdds * a.N * a.C, [&](int64_t piece) {
    const int64_t begin = piece * step, end = begin + step < a.N ? begin + step : a.N;
    if (a.target_is_probability) {
      gradients_of_probabilities(a, o, upstream, smooth_mass, begin, end);
      return;
    }
    const int64_t first_bad = gradients_of_ids(a, o, upstream, smooth_mass, begin, end);
    if (first_bad >= 0) report_first(&bad, first_bad);
  });
  return bad;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
