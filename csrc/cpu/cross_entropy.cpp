// cross_entropy on a CPU: log-sum-exp forward, softmax - target backward (see kernels.h).
//
// forward: one read of the logits. A piece of rows at a time: the row maximum and the sum of
// exponentials of each row (row_sums.h), then the logarithms of the whole piece as vectors, then
// the losses. Kept for the backward: maximum and log of the sum, apart, because their rounded sum
// would lose the low bits of the sum when all logits of a row share a large offset.
//
// backward: one read, one write: dinput = (softmax - target) * g in one expression per vector.
//
// Pieces do not depend on the number of threads; their losses are added in order, in double.
//
// Compile alone:
//   g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx512 -march=skylake-avx512 -c cross_entropy.cpp
#include <type_traits>

#include "cpu/threads/parallel.h"
#include "cpu/vector/row_sums.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Logits of one piece: enough to hide the cost of handing it out, few enough that a batch of a
// hundred thousand logits still divides evenly among the threads.
constexpr int64_t kPieceElements = 1 << 13;

template <class Args>
int64_t rows_per_piece(const Args& a) {
  const int64_t rows = kPieceElements / (a.C > 0 ? a.C : 1);
  return rows < 1 ? 1 : rows;
}

struct PieceSums {
  double loss, weight;
};

// The class weights, ones when there are none.
template <class T>
struct ClassWeights {
  const T* weight;  // or null
  MLPKERN_INLINE acc_t<T> operator[](int64_t c) const {
    return weight ? to_acc(weight[c]) : acc_t<T>{1};
  }
  MLPKERN_INLINE vec_t<acc_t<T>> at(int64_t c) const {
    return weight ? load(weight + c) : splat(acc_t<T>{1});
  }
  MLPKERN_INLINE vec_t<acc_t<T>> part(int64_t c, int64_t lanes) const {
    return weight ? load_part(weight + c, lanes) : splat(acc_t<T>{1});
  }
};

template <class T>
acc_t<T> total_class_weight(const ClassWeights<T>& weight, int64_t C) {
  double total = 0;
  for (int64_t c = 0; c < C; ++c) total += weight[c];
  return static_cast<acc_t<T>>(total);
}

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
  return reduce_add<A>(sum);
}

// What the rows of one call share.
template <class T>
struct Options {
  using A = acc_t<T>;
  ClassWeights<T> weight;
  A smooth, hard, smooth_each;  // label smoothing s, 1 - s, s / C

  template <class Args>
  explicit Options(const Args& a)
      : weight{static_cast<const T*>(a.weight)},
        smooth(static_cast<A>(a.label_smoothing)),
        hard(A{1} - smooth),
        smooth_each(smooth / static_cast<A>(a.C)) {}
};

// The targets of up to one vector of rows, and what of their logits and weights the loss needs.
template <class T>
struct TargetGroup {
  using A = acc_t<T>;
  static constexpr int64_t L = kLanes<A>;
  int64_t y[L];                       // -1: ignored
  alignas(64) A logit[L], weight[L];  // of the target; 0 where ignored
  alignas(64) A counted[L];           // 1, or 0 where ignored
  int64_t bad;                        // lane of the first id out of range, or -1

  template <class Args>
  MLPKERN_INLINE TargetGroup(const Args& a, const ClassWeights<T>& class_weight, int64_t begin,
                             int64_t count)
      : bad(-1) {
    const T* x = static_cast<const T*>(a.input) + begin * a.input_row_stride;
    store(logit, vec_t<A>{});
    store(weight, vec_t<A>{});
    store(counted, vec_t<A>{});
    for (int64_t i = 0; i < count; ++i, x += a.input_row_stride) {
      y[i] = read_index(a.index_type, a.target, (begin + i) * a.target_row_stride);
      if (y[i] == a.ignore_index) {
        y[i] = -1;
      } else if (in_range(y[i], a.C)) {
        logit[i] = to_acc(x[y[i]]);
        weight[i] = class_weight[y[i]];
        counted[i] = A{1};
      } else if (bad < 0) {
        bad = i;
      }
    }
  }
};

template <class A>
MLPKERN_INLINE vec_t<A> load_up_to(const A* p, int64_t count) {
  return count >= kLanes<A> ? load(p) : load_part(p, count);
}

// Losses of rows [begin, end) whose targets are ids, from their maxima and log sums; sums them up.
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
  sum = {reduce_add<A>(loss_sum), reduce_add<A>(weight_sum)};
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

  parallel_for(pieces, [&](int64_t piece) {
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

// out[c] = a p[c] - w[c] (e + b t[c]) with p = exp(x - m - log_sum); t absent when probability is
// null, the whole second term unless Weighted.
template <class T, bool Weighted>
MLPKERN_INLINE void gradient_row(T* out, const T* x, const T* probability,
                                 const ClassWeights<T>& weight, int64_t C, acc_t<T> m,
                                 acc_t<T> log_sum, acc_t<T> a, acc_t<T> b, acc_t<T> e) {
  using A = acc_t<T>;
  const vec_t<A> max = splat(m), log_z = splat(log_sum), scale = splat(a);
  const auto target_part = [&](vec_t<A> w, vec_t<A> t) { return w * (splat(e) + splat(b) * t); };
  for_classes<A>(
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
  return reduce_add<A>(sum);
}

// The factor of the rows' gradients: dloss of a row, or the one dloss with the mean's divisor.
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

// Gradients of rows [begin, end) whose targets are ids. The target's own class is computed apart,
// for a vector of rows at once: from the unrounded p, because a stored bfloat16 p has lost the low
// bits of p - 1. Returns the first row with a target out of range, or -1.
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
  parallel_for(pieces, [&](int64_t piece) {
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

size_t cross_entropy_forward_workspace(const CrossEntropyForward& args) {
  return ceil_div(args.N, rows_per_piece(args)) * sizeof(PieceSums);
}

int64_t cross_entropy_forward(const CrossEntropyForward& args) {
  return for_dtype(args.dtype, [&](auto* element) {
    return forward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

size_t cross_entropy_backward_workspace(const CrossEntropyBackward&) { return 0; }

int64_t cross_entropy_backward(const CrossEntropyBackward& args) {
  return for_dtype(args.dtype, [&](auto* element) {
    return backward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
