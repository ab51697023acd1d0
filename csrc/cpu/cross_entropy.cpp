// cross_entropy on a CPU: log-sum-exp forward, softmax - target backward (formulas: kernels.h).
//
// forward: one read of the logits. A piece of rows at a time: the row maximum and the sum of
//   exponentials of each row, then the logarithms of the whole piece as vectors, then the losses.
//   Rows of a few vectors go in groups of as many rows as a vector has lanes, whose reductions are
//   shared. Kept for the backward: maximum and log of the sum, apart, because their rounded sum
//   would lose the low bits of the sum when all logits of a row share a large offset.
// backward: one read, one write: dinput = (softmax - target) * g, the exponential scaled by one
// factor
//   g / sum of the row.
// Pieces do not depend on the number of threads; their losses are added in order, in double.
// Compile alone: g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx512 -march=skylake-avx512 -c
// cross_entropy.cpp
#include "cpu/lanes.h"
#include "cpu/parallel.h"
#include "cpu/vmath.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kPieceElements =
    1 << 15;  // logits of one piece: 128 KB of float32, half of a small L2

template <class Args>
int64_t rows_per_piece(const Args& a) {
  const int64_t rows = kPieceElements / (a.C > 0 ? a.C : 1);
  return rows < 1 ? 1 : rows;
}

struct PieceSums {
  double loss, weight;
};

// Calls body(c, lanes) over the classes, whole vectors first; the tail passes lanes < kLanes.
template <class A, class Body, class Tail>
MLPKERN_INLINE void for_classes(int64_t C, const Body& body, const Tail& tail) {
  int64_t c = 0;
  for (; c + kLanes<A> <= C; c += kLanes<A>) body(c);
  if (c < C) tail(c, C - c);
}

template <class A>
MLPKERN_INLINE vec_t<A> first_lanes(vec_t<A> v, int64_t lanes, A rest) {
  ints_t<A> index;
  for (int64_t i = 0; i < kLanes<A>; ++i) index[i] = i;
  return index < static_cast<std::remove_reference_t<decltype(index[0])>>(lanes) ? v : splat(rest);
}

template <class T>
MLPKERN_INLINE acc_t<T> row_maximum(const T* x, int64_t C) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const vec_t<A> lowest = splat(-static_cast<A>(__builtin_inf()));
  vec_t<A> m0 = lowest, m1 = lowest, m2 = lowest, m3 = lowest;
  int64_t c = 0;
  for (; c + 4 * L <= C; c += 4 * L) {
    m0 = maximum(load(x + c), m0);
    m1 = maximum(load(x + c + L), m1);
    m2 = maximum(load(x + c + 2 * L), m2);
    m3 = maximum(load(x + c + 3 * L), m3);
  }
  for (; c + L <= C; c += L) m0 = maximum(load(x + c), m0);
  if (c < C) m1 = maximum(first_lanes<A>(load_part(x + c, C - c), C - c, lowest[0]), m1);
  return reduce_max<A>(maximum(maximum(m0, m1), maximum(m2, m3)));
}

// sum_c exp(x[c] - m)
template <class T>
MLPKERN_INLINE acc_t<T> row_sum_of_exp(const T* x, int64_t C, acc_t<T> m) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const vec_t<A> shift = splat(m);
  vec_t<A> s0 = {}, s1 = {}, s2 = {}, s3 = {};
  int64_t c = 0;
  for (; c + 4 * L <= C; c += 4 * L) {
    s0 += exp_nonpositive(load(x + c) - shift);
    s1 += exp_nonpositive(load(x + c + L) - shift);
    s2 += exp_nonpositive(load(x + c + 2 * L) - shift);
    s3 += exp_nonpositive(load(x + c + 3 * L) - shift);
  }
  for (; c + L <= C; c += L) s0 += exp_nonpositive(load(x + c) - shift);
  if (c < C) {
    const vec_t<A> e = exp_nonpositive(load_part(x + c, C - c) - shift);
    s1 += first_lanes<A>(e, C - c, A{0});
  }
  return reduce_add<A>((s0 + s1) + (s2 + s3));
}

// Rows of at most kSmallVectors vectors.
constexpr int kSmallVectors = 4;

// Maximum and sum of exponentials of `count` <= kLanes rows of Vectors vectors each, the last
// partial.
template <class T, int Vectors>
void small_row_sums(const T* x, int64_t row_stride, int64_t count, int64_t C, acc_t<T>* maxima,
                    acc_t<T>* sums) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const int64_t tail = C - (Vectors - 1) * L;
  const A lowest = -static_cast<A>(__builtin_inf());
  const auto last = [&](const T* row) {
    return first_lanes<A>(load_part(row + (Vectors - 1) * L, tail), tail, lowest);
  };
  vec_t<A> part[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    const T* row = x + (i < count ? i : 0) * row_stride;
    part[i] = last(row);
#pragma GCC unroll 4
    for (int v = 0; v + 1 < Vectors; ++v) part[i] = maximum(load(row + v * L), part[i]);
  }
  alignas(64) A shift[L];
  store(shift, reduce_rows<A>(part, [](vec_t<A> a, vec_t<A> b) { return maximum(a, b); }));
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    const T* row = x + (i < count ? i : 0) * row_stride;
    const vec_t<A> m = splat(shift[i]);
    part[i] = exp_nonpositive(last(row) - m);
#pragma GCC unroll 4
    for (int v = 0; v + 1 < Vectors; ++v) part[i] += exp_nonpositive(load(row + v * L) - m);
  }
  const vec_t<A> sum = reduce_rows<A>(part, [](vec_t<A> a, vec_t<A> b) { return a + b; });
  store_part(maxima, load(shift), count);
  store_part(sums, sum, count);
}

// Maximum and sum of exponentials of `rows` rows.
template <class T>
void row_sums(const T* x, int64_t row_stride, int64_t rows, int64_t C, acc_t<T>* maxima,
              acc_t<T>* sums) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  if (C > kSmallVectors * L || rows < L / 2) {
    for (int64_t n = 0; n < rows; ++n) {
      maxima[n] = row_maximum(x + n * row_stride, C);
      sums[n] = row_sum_of_exp(x + n * row_stride, C, maxima[n]);
    }
    return;
  }
  const auto small = C <= L       ? small_row_sums<T, 1>
                     : C <= 2 * L ? small_row_sums<T, 2>
                     : C <= 3 * L ? small_row_sums<T, 3>
                                  : small_row_sums<T, 4>;
  for (int64_t n = 0; n < rows; n += L)
    small(x + n * row_stride, row_stride, rows - n < L ? rows - n : L, C, maxima + n, sums + n);
}

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

template <class T>
int64_t forward(const CrossEntropyForward& a) {
  using A = acc_t<T>;
  const T* input = static_cast<const T*>(a.input);
  const ClassWeights<T> weight{static_cast<const T*>(a.weight)};
  A* maxima = static_cast<A*>(a.lse);
  A* log_sums = maxima + a.N;
  T* loss = static_cast<T*>(a.loss);
  auto* sums = static_cast<PieceSums*>(a.workspace);
  const A smooth = static_cast<A>(a.label_smoothing), hard = A{1} - smooth;
  const A smooth_each = smooth / static_cast<A>(a.C);
  const int64_t step = rows_per_piece(a), pieces = ceil_div(a.N, step);
  int64_t bad = -1;

  parallel_for(pieces, [&](int64_t piece) {
    const int64_t begin = piece * step, end = begin + step < a.N ? begin + step : a.N;
    PieceSums sum = {0, 0};
    sums[piece] = sum;
    if (!a.target_is_probability) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t y = read_index(a.index_type, a.target, n * a.target_row_stride);
        if (in_range(y, a.C) || y == a.ignore_index) continue;
        report_first(&bad, n);
        return;
      }
    }
    row_sums(input + begin * a.input_row_stride, a.input_row_stride, end - begin, a.C,
             maxima + begin, log_sums + begin);
    int64_t n = begin;
    for (; n + kLanes<A> <= end; n += kLanes<A>)
      store(log_sums + n, log_of_sum(load(log_sums + n)));
    if (n < end) store_part(log_sums + n, log_of_sum(load_part(log_sums + n, end - n)), end - n);

    for (n = begin; n < end; ++n) {
      const T* x = input + n * a.input_row_stride;
      const A m = maxima[n], log_sum = log_sums[n];
      A row_loss, row_weight;
      if (a.target_is_probability) {
        const T* t = static_cast<const T*>(a.target) + n * a.target_row_stride;
        row_loss = -hard * weighted_log_probability(x, t, weight, a.C, m, log_sum);
        row_weight = A{1};
      } else {
        const int64_t y = read_index(a.index_type, a.target, n * a.target_row_stride);
        if (y == a.ignore_index) {
          if (a.reduction == Reduction::none) store_scalar(loss + n, A{0});
          continue;
        }
        row_weight = weight[y];
        row_loss = -hard * row_weight * ((to_acc(x[y]) - m) - log_sum);
      }
      if (smooth != 0)
        row_loss -= smooth_each * weighted_log_probability<T>(x, nullptr, weight, a.C, m, log_sum);
      if (a.reduction == Reduction::none) store_scalar(loss + n, row_loss);
      sum.loss += row_loss;
      sum.weight += row_weight;
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

template <class T>
int64_t backward(const CrossEntropyBackward& a) {
  using A = acc_t<T>;
  const T* input = static_cast<const T*>(a.input);
  const T* dloss = static_cast<const T*>(a.dloss);
  const ClassWeights<T> weight{static_cast<const T*>(a.weight)};
  const A* maxima = static_cast<const A*>(a.lse);
  const A* log_sums = maxima + a.N;
  T* dinput = static_cast<T*>(a.dinput);
  const A smooth = static_cast<A>(a.label_smoothing), hard = A{1} - smooth;
  const A smooth_each = smooth / static_cast<A>(a.C);
  const A smooth_mass = smooth != 0 ? smooth_each * total_class_weight(weight, a.C) : A{0};
  const A total_weight = *static_cast<const A*>(a.total_weight);
  const int64_t step = rows_per_piece(a), pieces = ceil_div(a.N, step);
  int64_t bad = -1;

  parallel_for(pieces, [&](int64_t piece) {
    const int64_t begin = piece * step, end = begin + step < a.N ? begin + step : a.N;
    for (int64_t n = begin; n < end; ++n) {
      const T* x = input + n * a.input_row_stride;
      T* out = dinput + n * a.C;
      A g = to_acc(dloss[a.reduction == Reduction::none ? n * a.dloss_stride : 0]);
      if (a.reduction == Reduction::mean) g /= total_weight;
      if (a.target_is_probability) {
        const T* t = static_cast<const T*>(a.target) + n * a.target_row_stride;
        const A mass = hard * weighted_mass(t, weight, a.C) + smooth_mass;
        gradient_row<T, true>(out, x, t, weight, a.C, maxima[n], log_sums[n], g * mass, g * hard,
                              g * smooth_each);
        continue;
      }
      const int64_t y = read_index(a.index_type, a.target, n * a.target_row_stride);
      if (y == a.ignore_index) {
        for (int64_t c = 0; c < a.C; ++c) store_scalar(out + c, A{0});
        continue;
      }
      if (!in_range(y, a.C)) {
        report_first(&bad, n);
        return;
      }
      const A at_target = g * hard * weight[y];
      const A scale = at_target + g * smooth_mass;
      const A smoothing = g * smooth_each;
      if (smooth != 0)
        gradient_row<T, true>(out, x, nullptr, weight, a.C, maxima[n], log_sums[n], scale, A{0},
                              smoothing);
      else
        gradient_row<T, false>(out, x, nullptr, weight, a.C, maxima[n], log_sums[n], scale, A{0},
                               A{0});
      if constexpr (sizeof(T) == sizeof(A)) {
        out[y] -= at_target;
      } else {  // from the unrounded value: what is stored has lost the low bits of p - 1
        const A p = exp_nonpositive(splat((to_acc(x[y]) - maxima[n]) - log_sums[n]))[0];
        store_scalar(out + y, (p * scale - smoothing * weight[y]) - at_target);
      }
    }
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
