// What the backward kernels of cross_entropy share: the gradient of one element,
//   dinput[n, c] = g p[c] sum_j q[j] - g q[c] - [c == y] g (1 - s) w[y]
// with g the gradient of the row and q as in cross_entropy/loss.cuh.
#pragma once

#include "cuda/cross_entropy/loss.cuh"

namespace mlpkern::cuda {
namespace {

// p[c] from the two parts of the log-sum-exp.
template <class A>
struct Softmax;

template <>
struct Softmax<float> {
  float max, shift;  // shift = -log_sum * log2(e)
  __device__ __forceinline__ static Softmax of(float max, float log_sum) {
    return {max, log_sum * -1.44269504f};
  }
  __device__ __forceinline__ float operator()(float x) const {
    return ex2_approx(fmaf(x - max, 1.44269504f, shift));
  }
};

template <>
struct Softmax<double> {
  double max, log_sum;
  __device__ __forceinline__ static Softmax of(double max, double log_sum) {
    return {max, log_sum};
  }
  __device__ __forceinline__ double operator()(double x) const { return exp((x - max) - log_sum); }
};

// dloss of row n, or the only dloss, divided for a mean.
template <class T>
__device__ __forceinline__ acc_t<T> upstream_gradient(const CrossEntropyBackward& a, int64_t n) {
  using A = acc_t<T>;
  const T* const dloss = static_cast<const T*>(a.dloss);
  if (a.reduction == Reduction::none) return to_acc(dloss[n * a.dloss_stride]);
  const A g = to_acc(*dloss);
  return a.reduction == Reduction::mean ? g / *static_cast<const A*>(a.total_weight) : g;
}

// The values common to all elements of a row.
template <class A>
struct RowGradient {
  Softmax<A> softmax;
  A upstream;  // g
  A one_hot;   // g (1 - s) w[y]; NaN where the target is bad, 0 for probabilities
  A scale;     // g times the sum of the whole target: one_hot + g sum_c q[c]

  __device__ __forceinline__ void set_mass(A mass) { scale = one_hot + upstream * mass; }
  // Of a class with logit x, but for the target's own: less `even` = g q[c].
  __device__ __forceinline__ A operator()(A x, A even) const { return softmax(x) * scale - even; }
};

// The gradient of row n before its target is known.
template <class T>
__device__ __forceinline__ RowGradient<acc_t<T>> row_gradient(const CrossEntropyBackward& a,
                                                              int64_t n) {
  const auto* const lse = static_cast<const acc_t<T>*>(a.lse);
  return {Softmax<acc_t<T>>::of(lse[n], lse[a.N + n]), upstream_gradient<T>(a, n), 0, 0};
}

// one_hot of a row whose target is not ignored.
template <class T>
__device__ __forceinline__ acc_t<T> one_hot_of(const Options<T>& o, acc_t<T> upstream, int64_t y) {
  if (y == kBad) return kNaN<acc_t<T>>;
  return y == kSpread ? acc_t<T>{0} : upstream * o.hard * o.weight_of(y);
}

}  // namespace
}  // namespace mlpkern::cuda
