// What the kernels of cross_entropy share: targets and options of a row, its loss from the
// statistics of its logits, and the sum of the losses.
//
// With q[c] = w[c] ((1 - s) t[c] + s / C), where t[c] are the probabilities, or 0 for ids:
//   ids:            loss = -(1 - s) w[y] log p[y] - sum_c q[c] log p[c]
//   probabilities:  loss = -sum_c q[c] log p[c]
#pragma once

#include "cuda/device/bad_id.cuh"
#include "cuda/device/dtype.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/device/reduce.cuh"

namespace mlpkern::cuda {

MLPKERN_BAD_IDS(cross_entropy)

namespace {

__device__ __forceinline__ float exp_of(float x) { return ex2_approx(x * 1.44269504f); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }

template <class A>
constexpr A kInfinity = static_cast<A>(INFINITY);
template <class A>
constexpr A kNaN = static_cast<A>(NAN);

// --- Targets -------------------------------------------------------------------------------------

constexpr int64_t kIgnored = -1, kBad = -2;
constexpr int64_t kSpread = -3;  // a row with probabilities has no class

// The target of row n as stored; a load whose result nothing needs yet.
template <class Args>
__device__ __forceinline__ int64_t read_target(const Args& a, int64_t n) {
  const int64_t i = n * a.target_row_stride;
  switch (a.index_type) {
    case IndexType::u8:
      return static_cast<const uint8_t*>(a.target)[i];
    case IndexType::i16:
      return static_cast<const int16_t*>(a.target)[i];
    case IndexType::i32:
      return static_cast<const int32_t*>(a.target)[i];
    default:
      return static_cast<const int64_t*>(a.target)[i];
  }
}

// The class of row n with target `id`, or kIgnored, or kBad, which it records if `records`.
template <class Args>
__device__ __forceinline__ int64_t class_of(const Args& a, int64_t n, int64_t id, bool records) {
  if (id == a.ignore_index) return kIgnored;
  if (id >= 0 && id < a.C) return id;
  if (records)
    record_bad_id(&bad_ids, IdSite{BadIdOp::cross_entropy, {1, {a.N}}, a.C, a.ignore_index}, n, id);
  return kBad;
}

// The options of a call, the same for all rows; a kernel argument, so that it takes no registers.
template <class T>
struct Options {
  using A = acc_t<T>;
  const T* weight;  // or null
  A hard, even;     // 1 - s, s / C

  template <class Args>
  explicit Options(const Args& a)
      : weight(static_cast<const T*>(a.weight)),
        hard(A{1} - static_cast<A>(a.label_smoothing)),
        even(static_cast<A>(a.label_smoothing) / static_cast<A>(a.C)) {}

  __device__ __forceinline__ A weight_of(int64_t c) const {
    return weight ? to_acc(weight[c]) : A{1};
  }
  // q[c] of a class with weight w and probability t.
  __device__ __forceinline__ A q(A w, A t) const { return w * (hard * t + even); }
};

// --- Statistics of the logits of a row, or of a part of it ---------------------------------------

template <class A>
struct Statistics {
  A max;
  A sum;        // of exp(x - reference)
  A dot, mass;  // sums of q (x - reference) and of q

  // The statistics of no logits.
  __device__ __forceinline__ static Statistics none() { return {-kInfinity<A>, 0, 0, 0}; }

  // The maximum, but 0 while it is -inf, so that x - reference is not NaN.
  __device__ __forceinline__ static A reference(A max) { return max == -kInfinity<A> ? A{0} : max; }

  // Makes max(max, seen) the maximum; returns the reference. Dotted: whether dot and mass are
  // computed; otherwise they stay 0.
  template <bool Dotted>
  __device__ __forceinline__ A raise(A seen) {
    const A larger = Larger{}(max, seen), to = reference(larger);
    sum *= exp_of(max - to);  // by 0 before the first logit
    if (Dotted) dot += mass * (reference(max) - to);
    max = larger;
    return to;
  }

  __device__ __forceinline__ void add(const Statistics& other) {
    Statistics part = other;
    part.raise<true>(max);
    raise<true>(other.max);
    sum += part.sum;
    dot += part.dot;
    mass += part.mass;
  }

  // Over the lanes of a warp; every lane gets the result.
  template <bool Dotted>
  __device__ __forceinline__ void reduce_warp() {
    raise<Dotted>(warp_max(max));
    sum = warp_sum(sum);
    if (Dotted) dot = warp_sum(dot), mass = warp_sum(mass);
  }

  // log(sum); NaN where no logit is above -inf.
  __device__ __forceinline__ A log_sum() const { return sum > 0 ? log(sum) : kNaN<A>; }
};

// --- Losses --------------------------------------------------------------------------------------

struct LossSums {
  double loss, weight;
};

// Writes loss and log-sum-exp of row n; adds to the sums. x: the row's logits. y: its class if
// targets are ids.
template <class T>
__device__ __forceinline__ void write_row(const CrossEntropyForward& a, const Options<T>& o,
                                          int64_t n, int64_t y, acc_t<T> logit, acc_t<T> weight,
                                          const Statistics<acc_t<T>>& s, LossSums& sums) {
  using A = acc_t<T>;
  const A log_sum = s.log_sum();
  A* lse = static_cast<A*>(a.lse);
  lse[n] = s.max;
  lse[a.N + n] = log_sum;
  A loss = -(s.dot - log_sum * s.mass);
  if (a.target_is_probability) {
    weight = 1;
  } else if (y >= 0) {
    loss = -o.hard * weight * ((logit - s.max) - log_sum) + loss;
  } else {
    loss = y == kIgnored ? A{0} : kNaN<A>;
    weight = 0;
  }
  if (a.reduction == Reduction::none) static_cast<T*>(a.loss)[n] = from_acc<T>(loss);
  sums.loss += loss;
  sums.weight += weight;
}

// The outputs of the whole call, by one thread.
template <class T>
__device__ __forceinline__ void write_loss(const CrossEntropyForward& a, const LossSums& sums) {
  using A = acc_t<T>;
  *static_cast<A*>(a.total_weight) = static_cast<A>(sums.weight);
  if (a.reduction == Reduction::none) return;
  const double loss = a.reduction == Reduction::mean ? sums.loss / sums.weight : sums.loss;
  *static_cast<T*>(a.loss) = from_acc<T>(static_cast<A>(loss));
}

// The first thread of a block writes the sums of the block to `partial`, or to the outputs of the
// call if there is only this block.
template <class T>
__device__ __forceinline__ void leave_sums(const CrossEntropyForward& a, const LossSums& sums,
                                           LossSums* partial) {
  if (gridDim.x == 1)
    write_loss<T>(a, sums);
  else
    partial[blockIdx.x] = sums;
}

// The same, from the sums of every thread.
template <class T>
__device__ __forceinline__ void leave_block_sums(const CrossEntropyForward& a, LossSums sums,
                                                 LossSums* partial) {
  __shared__ double losses[kMostWarps], weights[kMostWarps];
  sums.loss = block_sum(sums.loss, losses);
  sums.weight = block_sum(sums.weight, weights);
  if (threadIdx.x == 0) leave_sums<T>(a, sums, partial);
}

// One block adds the sums of the blocks of another kernel, in their order. This is a second kernel
// rather than a ticket by which the last block does it: the counter of a ticket must be zero before
// the launch; the workspace is not, and launches on several streams must not share a counter.
constexpr int kFinishThreads = 1024;
template <class T>
__global__ void __launch_bounds__(kFinishThreads)
    cross_entropy_finish_kernel(CrossEntropyForward a, LossSums* partial, int parts) {
  LossSums sums = {0, 0};
  for (int i = threadIdx.x; i < parts; i += kFinishThreads) {
    sums.loss += partial[i].loss;
    sums.weight += partial[i].weight;
  }
  leave_block_sums<T>(a, sums, nullptr);
}

}  // namespace
}  // namespace mlpkern::cuda
