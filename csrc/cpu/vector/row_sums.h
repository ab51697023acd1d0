// The maximum and the sum of exponentials of each row, for its log-sum-exp, in one read of the row.
//
// The last vector of a row ends where the row ends, so it overlaps the one before it; sums leave
// out the lanes that were already there.
#pragma once

#include "cpu/vector/lanes.h"
#include "cpu/vector/vmath.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Calls body(c) for the whole vectors of classes in [0, C), then tail(c, lanes) for those left.
template <class A, class Body, class Tail>
MLPKERN_INLINE void for_classes(int64_t C, const Body& body, const Tail& tail) {
  int64_t c = 0;
  for (; c + kLanes<A> <= C; c += kLanes<A>) body(c);
  if (c < C) tail(c, C - c);
}

// The same, but the last whole vector ends at C, so that classes may come twice; the tail is called
// for less than one vector in all.
template <class A, class Body, class Tail>
MLPKERN_INLINE void cover_classes(int64_t C, const Body& body, const Tail& tail) {
  constexpr int64_t L = kLanes<A>;
  if (C < L) return tail(int64_t{0}, C);
  int64_t c = 0;
  for (; c + L <= C; c += L) body(c);
  if (c < C) body(C - L);
}

// A vector whose lanes' maximum is that of the row. Vectors: how many cover the row, 0 for any
// number.
template <int Vectors, class T>
MLPKERN_INLINE vec_t<acc_t<T>> row_maximum(const T* x, int64_t C) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  if (Vectors <= 1 && C < L) return load_part_or(x, C, -static_cast<A>(__builtin_inf()));
  vec_t<A> m0 = load(x + C - L);
  if constexpr (Vectors > 0) {
#pragma GCC unroll 4
    for (int v = 0; v + 1 < Vectors; ++v) m0 = maximum(load(x + v * L), m0);
    return m0;
  }
  vec_t<A> m1 = m0, m2 = m0, m3 = m0;
  int64_t c = 0;
  for (; c + 4 * L <= C; c += 4 * L) {
    m0 = maximum(load(x + c), m0);
    m1 = maximum(load(x + c + L), m1);
    m2 = maximum(load(x + c + 2 * L), m2);
    m3 = maximum(load(x + c + 3 * L), m3);
  }
  for (; c + L <= C; c += L) m0 = maximum(load(x + c), m0);
  return maximum(maximum(m0, m1), maximum(m2, m3));
}

// A vector whose lanes add up to sum_c exp(x[c] - m).
template <int Vectors, class T>
MLPKERN_INLINE vec_t<acc_t<T>> row_sum_of_exp(const T* x, int64_t C, acc_t<T> m) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const vec_t<A> shift = splat(m);
  const auto term = [&](int64_t c) { return exp_nonpositive(load(x + c) - shift); };
  if (Vectors <= 1 && C < L)
    return first_lanes<A>(exp_nonpositive(load_part(x, C) - shift), C, A{0});
  if constexpr (Vectors > 0) {
    vec_t<A> sum = last_lanes<A>(term(C - L), C - (Vectors - 1) * L);
#pragma GCC unroll 4
    for (int v = 0; v + 1 < Vectors; ++v) sum += term(v * L);
    return sum;
  }
  vec_t<A> s0 = {}, s1 = {}, s2 = {}, s3 = {};
  int64_t c = 0;
  for (; c + 4 * L <= C; c += 4 * L) {
    s0 += term(c);
    s1 += term(c + L);
    s2 += term(c + 2 * L);
    s3 += term(c + 3 * L);
  }
  for (; c + L <= C; c += L) s0 += term(c);
  if (c < C) s1 += last_lanes<A>(term(C - L), C - c);
  return (s0 + s1) + (s2 + s3);
}

// part[i] = body(i) for i < count; unrolled for rows of few vectors, which then stay in registers.
template <int Vectors, class V, size_t L, class Body>
MLPKERN_INLINE void for_rows(V (&part)[L], int64_t count, const Body& body) {
  if constexpr (Vectors > 0) {
#pragma GCC unroll 16
    for (size_t i = 0; i < L; ++i) part[i] = body(static_cast<int64_t>(i) < count ? i : 0);
  } else {
    for (int64_t i = 0; i < count; ++i) part[i] = body(i);
  }
}

// Maximum and sum of exponentials of `count` <= kLanes rows, reduced together.
template <class T, int Vectors>
void group_row_sums(const T* x, int64_t row_stride, int64_t count, int64_t C, acc_t<T>* maxima,
                    acc_t<T>* sums) {
  using A = acc_t<T>;
  vec_t<A> part[kLanes<A>] = {};
  alignas(64) A shift[kLanes<A>];
  for_rows<Vectors>(part, count,
                    [&](int64_t i) { return row_maximum<Vectors>(x + i * row_stride, C); });
  store(shift, reduce_rows<A>(part, [](vec_t<A> a, vec_t<A> b) { return maximum(a, b); }));
  for_rows<Vectors>(part, count, [&](int64_t i) {
    return row_sum_of_exp<Vectors>(x + i * row_stride, C, shift[i]);
  });
  const vec_t<A> sum = reduce_rows<A>(part, [](vec_t<A> a, vec_t<A> b) { return a + b; });
  store_part(maxima, load(shift), count);
  store_part(sums, sum, count);
}

constexpr int64_t kGroupBytes = 1 << 14;  // of a group of rows, so that its second read is from L1

// Maximum and sum of exponentials of `rows` rows.
template <class T>
void row_sums(const T* x, int64_t row_stride, int64_t rows, int64_t C, acc_t<T>* maxima,
              acc_t<T>* sums) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  if (C * L * static_cast<int64_t>(sizeof(T)) > kGroupBytes || rows < L / 2) {
    for (int64_t n = 0; n < rows; ++n) {
      const T* x_n = x + n * row_stride;
      maxima[n] = reduce_max(row_maximum<0>(x_n, C));
      sums[n] = reduce_add(row_sum_of_exp<0>(x_n, C, maxima[n]));
    }
    return;
  }
  const auto group = C <= L       ? group_row_sums<T, 1>
                     : C <= 2 * L ? group_row_sums<T, 2>
                     : C <= 3 * L ? group_row_sums<T, 3>
                     : C <= 4 * L ? group_row_sums<T, 4>
                                  : group_row_sums<T, 0>;
  for (int64_t n = 0; n < rows; n += L)
    group(x + n * row_stride, row_stride, rows - n < L ? rows - n : L, C, maxima + n, sums + n);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
