// The maximum and the sum of exponentials of each row, for its log-sum-exp, in one read of the row.
#pragma once

#include "cpu/vector/lanes.h"
#include "cpu/vector/vmath.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Calls body(c, lanes) over the classes, whole vectors first; the tail passes lanes < kLanes.
template <class A, class Body, class Tail>
MLPKERN_INLINE void for_classes(int64_t C, const Body& body, const Tail& tail) {
  int64_t c = 0;
  for (; c + kLanes<A> <= C; c += kLanes<A>) body(c);
  if (c < C) tail(c, C - c);
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
  return reduce_max(maximum(maximum(m0, m1), maximum(m2, m3)));
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
  return reduce_add((s0 + s1) + (s2 + s3));
}

// For rows of at most kSmallVectors vectors.
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
    return load_part_or(row + (Vectors - 1) * L, tail, lowest);
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

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
