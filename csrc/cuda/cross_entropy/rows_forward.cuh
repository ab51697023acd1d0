// cross_entropy of wide rows, forward: online log-sum-exp, one read of the logits.
//
// A thread keeps the running maximum and sum, and rescales the sum when a round of vectors raises
// the maximum. Then the lanes of each warp are combined by shuffles, the warps of a team through
// shared memory. Pieces of long rows write their statistics to the workspace, and the combine
// kernel adds those of each row in order.
#pragma once

#include "cuda/cross_entropy/loss.cuh"
#include "cuda/cross_entropy/parts.cuh"

namespace mlpkern::cuda {
namespace {

// The largest element of a vector; 16-bit elements are compared in pairs.
template <class T>
__device__ __forceinline__ acc_t<T> largest(const Vector<T>& v) {
  constexpr int Items = kVectorItems<T>;
  if constexpr (sizeof(T) == 2) {
    decltype(pair_of(T{}, 0, 0)) pair[Items / 2];
    memcpy(pair, &v, sizeof v);
#pragma unroll
    for (int i = 1; i < Items / 2; ++i) pair[0] = __hmax2(pair[0], pair[i]);
    return Larger{}(to_acc(pair[0].x), to_acc(pair[0].y));
  } else {
    acc_t<T> most = to_acc(v.item[0]);
#pragma unroll
    for (int i = 1; i < Items; ++i) most = Larger{}(most, to_acc(v.item[i]));
    return most;
  }
}

// What is summed besides the exponentials.
enum class Sums {
  exponentials,  // nothing: ids without smoothing
  even,          // the logits: smoothing without class weights, so that all q are s / C
  weighted       // q times the logits
};

// The statistics of the elements of one thread of the team.
template <class T, Sums kSums>
__device__ __forceinline__ Statistics<acc_t<T>> scan(const Part<T>& part, const Options<T>& o,
                                                     int thread, int threads) {
  using A = acc_t<T>;
  constexpr bool Dotted = kSums != Sums::exponentials, Weighted = kSums == Sums::weighted;
  constexpr int Items = kVectorItems<T>, InFlight = kInFlight<T, Weighted>;
  const bool weight_aligned = Weighted && same_phase(part.x, part.weight);
  const bool probability_aligned = Weighted && same_phase(part.x, part.probability);
  Statistics<A> s = Statistics<A>::none();

  const auto edge = [&](int e) {
    const A x = to_acc(part.x[e]), from = s.template raise<Dotted>(x);
    s.sum += exp_of(x - from);
    if (!Dotted) return;
    const A q = Weighted ? part.q(o, e) : o.even;
    s.dot += q * (x - from);
    s.mass += q;
  };
  const auto round = [&](auto whole, int first, int step, int end) {
    const auto dealt = [&](int u) { return decltype(whole)::value || first + u * step < end; };
    Vector<T> logits[InFlight], probabilities[InFlight];
#pragma unroll
    for (int u = 0; u < InFlight; ++u)
      if (dealt(u)) {
        const int e = first + u * step;
        logits[u] = load_vector<Items>(part.x + e);
        if (Weighted && part.probability)
          probabilities[u] = load_at_any_phase(part.probability + e, probability_aligned);
      }
    A most = -kInfinity<A>;
#pragma unroll
    for (int u = 0; u < InFlight; ++u)
      if (dealt(u)) most = Larger{}(most, largest(logits[u]));
    const A from = s.template raise<Dotted>(most);
    A sum[InFlight] = {}, shifted = 0;
#pragma unroll
    for (int u = 0; u < InFlight; ++u)
      if (dealt(u)) {
        A x[Items], q[Items];
        unpack(logits[u], x);
        if (Weighted) part.q(o, probabilities[u], first + u * step, weight_aligned, q);
#pragma unroll
        for (int i = 0; i < Items; ++i) {
          const A distance = x[i] - from;
          sum[u] += exp_of(distance);
          if (kSums == Sums::even) shifted += distance;
          if (Weighted) s.dot += q[i] * distance, s.mass += q[i];
        }
        if (kSums == Sums::even) s.mass += o.even * Items;
      }
#pragma unroll
    for (int u = 0; u < InFlight; ++u) s.sum += sum[u];
    if (kSums == Sums::even) s.dot += o.even * shifted;
  };
  deal<InFlight>(part.x, part.count, thread, threads, edge, round);
  return s;
}

// Over a team, into its thread 0. `shared` may be reused after one more barrier.
template <bool Dotted, class A>
__device__ __forceinline__ void reduce_team(Statistics<A>& s, int warps, Statistics<A>* shared) {
  s.template reduce_warp<Dotted>();
  if (warps == 1) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (lane == 0) shared[warp] = s;
  __syncthreads();
  if (warp != 0) return;
  s = lane < warps ? shared[lane] : Statistics<A>::none();
  s.template reduce_warp<Dotted>();
}

// Grid: enough blocks for all units. With pieces their statistics go to `pieces`; without, the
// sums of the losses go to `partial`.
template <class T, Sums kSums>
__global__ void __launch_bounds__(kRowThreads, (kRowBlocks<T, kSums == Sums::weighted>))
    cross_entropy_rows_forward_kernel(CrossEntropyForward a, Options<T> o, RowPlan plan,
                                      Statistics<acc_t<T>>* pieces, LossSums* partial) {
  using A = acc_t<T>;
  // Two, used alternately: while warp 0 reads those of one row, other warps may write those of the
  // next.
  __shared__ Statistics<A> shared[2][kMostTeamWarps];
  __shared__ LossSums sums[kMostTeams];  // by the first thread of each team
  const TeamUnits team(plan);
  if (team.thread == 0) sums[team.team] = {0, 0};
  for (int i = team.team; i < plan.units_per_block; i += plan.teams) {
    const int64_t unit = team.first + i;
    if (unit >= plan.units) break;
    const Part<T> part = part_of<T>(a, plan, unit);
    const bool finishes = team.thread == 0 && plan.pieces == 1;
    int64_t y = kIgnored;
    if (finishes && !a.target_is_probability) y = read_target(a, unit);
    Statistics<A> s = scan<T, kSums>(part, o, team.thread, team.threads);
    A logit = 0, weight = 0;
    if (finishes && !a.target_is_probability) {
      y = class_of(a, unit, y, true);
      if (y >= 0) logit = to_acc(part.x[y]), weight = o.weight_of(y);
    }
    reduce_team<kSums != Sums::exponentials>(s, plan.team_warps, shared[i & 1]);
    if (finishes)
      write_row(a, o, unit, y, logit, weight, s, sums[team.team]);
    else if (team.thread == 0)
      pieces[unit] = s;
  }
  if (plan.pieces > 1) return;
  if (plan.teams > 1) __syncthreads();
  if (threadIdx.x != 0) return;
  LossSums all = sums[0];
  for (int t = 1; t < plan.teams; ++t) all.loss += sums[t].loss, all.weight += sums[t].weight;
  leave_sums<T>(a, all, partial);
}

// Adds the pieces of each row in order, a warp a row, `rows_per_block` rows a block.
constexpr int kCombineThreads = 256;
template <class T>
__global__ void __launch_bounds__(kCombineThreads)
    cross_entropy_combine_kernel(CrossEntropyForward a, Options<T> o, int64_t pieces_per_row,
                                 int64_t rows_per_block, const Statistics<acc_t<T>>* pieces,
                                 LossSums* partial) {
  using A = acc_t<T>;
  const int lane = threadIdx.x % kWarp;
  const int64_t first = blockIdx.x * rows_per_block;
  const int64_t last = a.N - first < rows_per_block ? a.N : first + rows_per_block;
  LossSums sums = {0, 0};
  for (int64_t n = first + threadIdx.x / kWarp; n < last; n += kCombineThreads / kWarp) {
    Statistics<A> s = Statistics<A>::none();
    for (int64_t piece = lane; piece < pieces_per_row; piece += kWarp)
      s.add(pieces[n * pieces_per_row + piece]);
    s.template reduce_warp<true>();
    if (lane != 0) continue;
    int64_t y = kIgnored;
    A logit = 0, weight = 0;
    if (!a.target_is_probability) y = class_of(a, n, read_target(a, n), true);
    if (y >= 0) {
      logit = to_acc(static_cast<const T*>(a.input)[n * a.input_row_stride + y]);
      weight = o.weight_of(y);
    }
    write_row(a, o, n, y, logit, weight, s, sums);
  }
  leave_block_sums<T>(a, sums, partial);
}

}  // namespace
}  // namespace mlpkern::cuda
