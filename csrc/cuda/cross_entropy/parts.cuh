// How wide rows of cross_entropy are distributed over threads: each row, or each piece of a long
// row, belongs to a team of threads, which reads it 128 bits at a time. A row may begin at any
// element: up to the first 16-byte boundary and after the last one, threads take single elements.
//
// All cuts depend on shapes alone, never on the device.
#pragma once

#include <type_traits>

#include "cuda/cross_entropy/loss.cuh"
#include "cuda/device/vector.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kMostTeamWarps = 8;
constexpr int kMostTeams = 8;                        // of a block
constexpr int kRowThreads = kMostTeamWarps * kWarp;  // the largest block

// Units are rows, or pieces of rows, in order. A block takes `units_per_block` of them, as many at
// a time as it has teams.
struct RowPlan {
  int team_warps;  // of one team; above 1 the block is one team
  int teams;       // of a block
  int piece;       // elements of a piece; the last of a row may be shorter
  int64_t pieces;  // of each row; above 1 there are fewer than 2^32 units
  int units_per_block;
  int64_t units;
};

// The units of this thread's team: first + i for i = team, team + plan.teams, ... below
// plan.units_per_block, as long as such units exist.
struct TeamUnits {
  int threads, thread;  // of the team; this one in it
  int team;             // of the block
  int64_t first;

  __device__ __forceinline__ explicit TeamUnits(const RowPlan& plan, unsigned block = blockIdx.x)
      : threads(plan.team_warps * kWarp),
        thread(plan.teams > 1 ? threadIdx.x % kWarp : threadIdx.x),
        team(plan.teams > 1 ? threadIdx.x / kWarp : 0),
        first(static_cast<int64_t>(block) * plan.units_per_block) {}
};

// Vectors that a thread has in flight: 64 bytes, half of them targets if these are probabilities;
// half as many for float64, whose exponentials need the registers.
template <class T, bool Weighted>
constexpr int kInFlight = Weighted || sizeof(T) == 8 ? 2 : 4;

// Blocks on a multiprocessor, which bounds the registers of a thread to 64 or 128.
template <class T, bool Weighted>
constexpr int kRowBlocks = sizeof(T) == 8 || Weighted ? 2 : 4;

// The vector at p, or its elements one by one.
template <class T>
__device__ __forceinline__ Vector<T> load_at_any_phase(const T* p, bool aligned) {
  if (aligned) return load_vector<kVectorItems<T>>(p);
  Vector<T> v;
#pragma unroll
  for (int i = 0; i < kVectorItems<T>; ++i) v.item[i] = p[i];
  return v;
}

// A row or a piece of it: its first element in every array, null where there is none.
template <class T>
struct Part {
  const T* x;
  const T* probability;
  const T* weight;
  int64_t n, begin;  // row and class of the first element
  int count;

  // q of element e.
  __device__ __forceinline__ acc_t<T> q(const Options<T>& o, int e) const {
    using A = acc_t<T>;
    return o.q(weight ? to_acc(weight[e]) : A{1}, probability ? to_acc(probability[e]) : A{0});
  }
  // The same for the elements from e on, whose probabilities, if there are any, are loaded already.
  __device__ __forceinline__ void q(const Options<T>& o, const Vector<T>& probabilities, int e,
                                    bool weight_aligned, acc_t<T> (&to)[kVectorItems<T>]) const {
    using A = acc_t<T>;
    A t[kVectorItems<T>] = {}, w[kVectorItems<T>] = {};
    if (probability) unpack(probabilities, t);
    if (weight) unpack(load_at_any_phase(weight + e, weight_aligned), w);
#pragma unroll
    for (int i = 0; i < kVectorItems<T>; ++i) to[i] = o.q(weight ? w[i] : A{1}, t[i]);
  }
};

template <class T, class Args>
__device__ __forceinline__ Part<T> part_of(const Args& a, const RowPlan& plan, int64_t unit) {
  int64_t n = unit, begin = 0;
  if (plan.pieces > 1) {
    n = static_cast<unsigned>(unit) / static_cast<unsigned>(plan.pieces);  // 64 bits need a call
    begin = (unit - n * plan.pieces) * plan.piece;
  }
  const int64_t left = a.C - begin;
  const T* const target = static_cast<const T*>(a.target) + n * a.target_row_stride + begin;
  return {static_cast<const T*>(a.input) + n * a.input_row_stride + begin,
          a.target_is_probability ? target : nullptr,
          a.weight ? static_cast<const T*>(a.weight) + begin : nullptr,
          n,
          begin,
          static_cast<int>(left < plan.piece ? left : plan.piece)};
}

// Distributes `count` elements at p over a team. For the elements before the first vector boundary
// and after the last: edge(e), at most one per thread. For the vectors, InFlight of them a round:
// round(whole, e, step, end) with those at e, e + step, ... below `end`; all InFlight of them if
// `whole` is true.
template <int InFlight, class T, class Edge, class Round>
__device__ __forceinline__ void deal(const T* p, int count, int thread, int threads,
                                     const Edge& edge, const Round& round) {
  constexpr int Items = kVectorItems<T>;
  const int head = min(items_to_boundary(p), count);
  const int end = head + (count - head) / Items * Items;
  const int single = thread < head ? thread : thread - head + end;
  if (single < count) edge(single);
  const int step = threads * Items;
  int e = head + thread * Items;
#pragma unroll 1
  for (; e + (InFlight - 1) * step < end; e += InFlight * step)
    round(std::true_type{}, e, step, end);
  if (e < end) round(std::false_type{}, e, step, end);
}

}  // namespace
}  // namespace mlpkern::cuda
