// Exchanges of lanes between the vectors of a square block: transpose, and a reduction of each
// vector.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

template <int Step, class V, int... Lane>
MLPKERN_INLINE void exchange_lanes(V& low, V& high, std::integer_sequence<int, Lane...>) {
  constexpr int kCount = sizeof...(Lane);
  const V a = low, b = high;
#if defined(__clang__)
  low = __builtin_shufflevector(a, b, (Lane & Step ? kCount + Lane - Step : Lane)...);
  high = __builtin_shufflevector(a, b, (Lane & Step ? kCount + Lane : Lane + Step)...);
#else
  using Ints = ints_t<std::remove_cv_t<std::remove_reference_t<decltype(low[0])>>>;
  low = __builtin_shuffle(a, b, Ints{(Lane & Step ? kCount + Lane - Step : Lane)...});
  high = __builtin_shuffle(a, b, Ints{(Lane & Step ? kCount + Lane : Lane + Step)...});
#endif
}

// One exchange step on two rows of a block: low keeps its lanes without bit Step and takes the
// others from high, Step lanes lower; high keeps its lanes with the bit and takes the others from
// low.
template <class A, int Step>
MLPKERN_INLINE void exchange(vec_t<A>& low, vec_t<A>& high) {
  exchange_lanes<Step>(low, high, std::make_integer_sequence<int, kLanes<A>>());
}

template <class A, int Step = 1>
MLPKERN_INLINE void transpose(vec_t<A> (&block)[kLanes<A>]) {
  if constexpr (Step < kLanes<A>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<A>; ++i)
      if (!(i & Step)) exchange<A, Step>(block[i], block[i + Step]);
    transpose<A, 2 * Step>(block);
  }
}

// Lane l of the result is op over all lanes of rows[l]. Each step halves the number of vectors,
// so a reduction costs three instructions a row; one row at a time it costs ten. Overwrites rows.
template <class A, int Step = 1, class Op>
MLPKERN_INLINE vec_t<A> reduce_rows(vec_t<A> (&rows)[kLanes<A>], const Op& op) {
  if constexpr (Step < kLanes<A>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<A> / (2 * Step); ++i) {
      exchange<A, Step>(rows[2 * i], rows[2 * i + 1]);
      rows[i] = op(rows[2 * i], rows[2 * i + 1]);
    }
    return reduce_rows<A, 2 * Step>(rows, op);
  }
  return rows[0];
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
