// What the forward and the backward of cross_entropy share: how the rows are cut into pieces, the
// class weights and options of a call, and the targets of a vector of rows.
#pragma once

#include "cpu/threads/scratch.h"
#include "cpu/vector/row_sums.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Logits of one piece: enough to hide the cost of scheduling it, few enough that threads share a
// batch of a hundred thousand logits evenly.
constexpr int64_t kPieceElements = 1 << 13;

constexpr int64_t kClassMultiplyAdds = 20;  // of a class, that take as long as its exponential

template <class Args>
int64_t rows_per_piece(const Args& a) {
  const int64_t rows = kPieceElements / (a.C > 0 ? a.C : 1);
  return rows < 1 ? 1 : rows;
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

// The options of a call, the same for all rows.
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

// The targets of up to one vector of rows, and their logits and weights.
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

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
