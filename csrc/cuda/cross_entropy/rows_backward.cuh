// cross_entropy of wide rows, backward: one read of the logits, one write of their gradients.
//
// The pieces of a row are independent of each other. Only probabilities are read twice, the first
// time for the sum of q; rows with them are not cut.
#pragma once

#include <climits>

#include "cuda/cross_entropy/gradient.cuh"
#include "cuda/cross_entropy/parts.cuh"

namespace mlpkern::cuda {
namespace {

// The sum of q over the part of a team; every thread gets it. `shared` may be reused after one more
// barrier.
template <class T>
__device__ __forceinline__ acc_t<T> team_mass(const Part<T>& part, const Options<T>& o, int thread,
                                              int warps, acc_t<T>* shared) {
  using A = acc_t<T>;
  constexpr int Items = kVectorItems<T>, InFlight = kInFlight<T, false>;
  const bool weight_aligned = same_phase(part.probability, part.weight);
  A sum = 0;
  const auto edge = [&](int e) { sum += part.q(o, e); };
  const auto round = [&](auto whole, int first, int step, int end) {
    const auto dealt = [&](int u) { return decltype(whole)::value || first + u * step < end; };
    Vector<T> probabilities[InFlight];
#pragma unroll
    for (int u = 0; u < InFlight; ++u)
      if (dealt(u)) probabilities[u] = load_vector<Items>(part.probability + first + u * step);
#pragma unroll
    for (int u = 0; u < InFlight; ++u)
      if (dealt(u)) {
        A q[Items];
        part.q(o, probabilities[u], first + u * step, weight_aligned, q);
#pragma unroll
        for (int i = 0; i < Items; ++i) sum += q[i];
      }
  };
  deal<InFlight>(part.probability, part.count, thread, warps * kWarp, edge, round);
  return warps == 1 ? warp_sum(sum) : block_sum(sum, shared);
}

// The sum of q over each piece of the probabilities, for rows cut in pieces.
template <class T>
__global__ void __launch_bounds__(kRowThreads, (kRowBlocks<T, false>))
    cross_entropy_mass_kernel(CrossEntropyBackward a, Options<T> o, RowPlan plan,
                              acc_t<T>* masses) {
  __shared__ acc_t<T> shared[2][kMostWarps];  // two, used alternately: see the forward
  const TeamUnits team(plan);
  for (int i = team.team; i < plan.units_per_block; i += plan.teams) {
    const int64_t unit = team.first + i;
    if (unit >= plan.units) break;
    const auto mass =
        team_mass(part_of<T>(a, plan, unit), o, team.thread, plan.team_warps, shared[i & 1]);
    if (team.thread == 0) masses[unit] = mass;
  }
}

// Writes zeros to the row of an ignored target.
template <class T>
__device__ __forceinline__ void write_zeros(T* out, int count, int thread, int threads) {
  const auto edge = [&](int e) { out[e] = from_acc<T>(0); };
  const auto round = [&](auto, int e, int, int) {
    const acc_t<T> zeros[kVectorItems<T>] = {};
    store_vector_once(out + e, pack<T>(zeros));
  };
  deal<1>(out, count, thread, threads, edge, round);
}

constexpr int kNowhere = INT_MIN / 2;  // far before every element

// Gradients of the elements of one thread. `hit` is the element of the target, or kNowhere; `even`
// is g q[c] where it is the same for all classes.
template <class T, bool Weighted>
__device__ __forceinline__ void write_gradients(const Part<T>& part, T* out, const Options<T>& o,
                                                const RowGradient<acc_t<T>>& gradient,
                                                acc_t<T> even, int hit, int thread, int threads) {
  using A = acc_t<T>;
  constexpr int Items = kVectorItems<T>, InFlight = kInFlight<T, Weighted>;
  const bool weight_aligned = Weighted && same_phase(part.x, part.weight);
  const bool probability_aligned = Weighted && same_phase(part.x, part.probability);
  const bool out_aligned = same_phase(part.x, out);

  const auto edge = [&](int e) {
    A g = gradient(to_acc(part.x[e]), Weighted ? gradient.upstream * part.q(o, e) : even);
    if (e == hit) g -= gradient.one_hot;
    out[e] = from_acc<T>(g);
  };
  const auto round = [&](auto whole, int first, int step, int end) {
    const auto dealt = [&](int u) { return decltype(whole)::value || first + u * step < end; };
    Vector<T> logits[InFlight], probabilities[InFlight];
#pragma unroll
    for (int u = 0; u < InFlight; ++u)
      if (dealt(u)) {
        const int e = first + u * step;
        logits[u] = load_vector_once<Items>(part.x + e);
        if (Weighted && part.probability)
          probabilities[u] = load_at_any_phase(part.probability + e, probability_aligned);
      }
#pragma unroll
    for (int u = 0; u < InFlight; ++u)
      if (dealt(u)) {
        const int e = first + u * step;
        A g[Items], q[Items];
        unpack(logits[u], g);
        if (Weighted) part.q(o, probabilities[u], e, weight_aligned, q);
#pragma unroll
        for (int i = 0; i < Items; ++i)
          g[i] = gradient(g[i], Weighted ? gradient.upstream * q[i] : even);
        if (static_cast<unsigned>(hit - e) < static_cast<unsigned>(Items)) {
#pragma unroll
          for (int i = 0; i < Items; ++i)
            if (hit - e == i) g[i] -= gradient.one_hot;
        }
        const Vector<T> packed = pack<T>(g);
        if (out_aligned) {
          store_vector_once(out + e, packed);
        } else {
#pragma unroll
          for (int i = 0; i < Items; ++i) out[e + i] = packed.item[i];
        }
      }
  };
  deal<InFlight>(part.x, part.count, thread, threads, edge, round);
}

// The sum of the class weights, by one block.
constexpr int kWeightThreads = 512;
template <class T>
__global__ void __launch_bounds__(kWeightThreads)
    cross_entropy_weight_sum_kernel(const T* weight, int64_t C, acc_t<T>* sum) {
  __shared__ double shared[kMostWarps];
  double mine = 0;
  for (int64_t c = threadIdx.x; c < C; c += kWeightThreads) mine += to_acc(weight[c]);
  const double all = block_sum(mine, shared);
  if (threadIdx.x == 0) *sum = static_cast<acc_t<T>>(all);
}

// sums, for Weighted only: with probabilities the sums of q over the pieces, or null where rows are
// not cut; without, the sum of the class weights.
template <class T, bool Weighted>
__global__ void __launch_bounds__(kRowThreads, (kRowBlocks<T, Weighted>))
    cross_entropy_rows_backward_kernel(CrossEntropyBackward a, Options<T> o, RowPlan plan,
                                       const acc_t<T>* sums) {
  using A = acc_t<T>;
  __shared__ A shared[2][kMostWarps];  // two, used alternately: see the forward
  // The last units first: the forward has read them last, so they may still be in L2.
  const TeamUnits team(plan, gridDim.x - 1 - blockIdx.x);
  for (int i = team.team; i < plan.units_per_block; i += plan.teams) {
    const int64_t unit = team.first + i;
    if (unit >= plan.units) break;
    const Part<T> part = part_of<T>(a, plan, unit);
    T* const out = static_cast<T*>(a.dinput) + part.n * a.C + part.begin;
    int64_t y = part.probability ? kSpread : read_target(a, part.n);
    RowGradient<A> gradient = row_gradient<T>(a, part.n);
    if (!part.probability) y = class_of(a, part.n, y, team.thread == 0 && part.begin == 0);
    if (y == kIgnored) {
      write_zeros(out, part.count, team.thread, team.threads);
      continue;
    }
    const bool smooth = a.label_smoothing != 0;
    A mass = smooth ? static_cast<A>(a.label_smoothing) : A{0};
    if (Weighted) {
      if (!part.probability) {
        mass = o.even * *sums;
      } else if (!sums) {
        mass = team_mass(part, o, team.thread, plan.team_warps, shared[i & 1]);
      } else {
        mass = 0;
        for (int64_t piece = team.thread % kWarp; piece < plan.pieces; piece += kWarp)
          mass += sums[part.n * plan.pieces + piece];
        mass = warp_sum(mass);
      }
    }
    gradient.one_hot = one_hot_of(o, gradient.upstream, y);
    gradient.set_mass(mass);
    const int64_t hit = y - part.begin;
    const bool hits = static_cast<uint64_t>(hit) < static_cast<uint64_t>(part.count);
    write_gradients<T, Weighted>(part, out, o, gradient, smooth ? gradient.upstream * o.even : A{0},
                                 hits ? static_cast<int>(hit) : kNowhere, team.thread,
                                 team.threads);
  }
}

}  // namespace
}  // namespace mlpkern::cuda
