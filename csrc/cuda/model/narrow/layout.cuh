// train_steps of narrow models: which models these are, and the layout of the shared memory of a
// block.
//
// Matrices that are read as fragments of mma have a stride of 4 floats more than a multiple of 32:
// the lanes of a warp, eight rows of four adjacent elements or four pairs of rows of eight, then
// use 32 different banks. Matrices that are stored as results of mma have 8 more: the same for four
// rows of eight, which half a warp stores.
#pragma once

#include "cuda/device/philox.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/model/mlp.cuh"
#include "cuda/model/optimizer.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kNarrowRows = 32;       // of the batch at a time
constexpr int kNarrowUnits = 16;      // of a warp
constexpr int kNarrowMostWarps = 16;  // so that a thread may have 128 registers
constexpr int kNarrowWidth = 32;      // most inputs T*D, and most classes
constexpr int kNarrowStride = kNarrowWidth + 4;
constexpr int kNarrowTile = kNarrowRows * kNarrowStride;
constexpr int kNarrowPartStride = kNarrowWidth + 8;
constexpr int kNarrowPart = kNarrowRows * kNarrowPartStride;
static_assert(kNarrowRows * kNarrowUnits <= kNarrowPart);

// Whether lanes that access `floats` adjacent floats each, at these addresses, meet no bank twice.
constexpr bool meet_no_bank_twice(int lanes, int floats, int (*address)(int lane)) {
  bool met[32] = {};
  for (int lane = 0; lane < lanes; ++lane)
    for (int i = 0; i < floats; ++i) {
      bool& bank = met[(address(lane) + i) % 32];
      if (bank) return false;
      bank = true;
    }
  return true;
}

constexpr int along(int lane) { return lane / 4 * kNarrowStride + lane % 4; }
constexpr int across(int lane) { return lane % 4 * 2 * kNarrowStride + lane / 4; }
constexpr int result(int lane) { return lane / 4 * kNarrowPartStride + lane % 4 * 2; }
static_assert(meet_no_bank_twice(32, 1, along) && meet_no_bank_twice(32, 1, across) &&
              meet_no_bank_twice(16, 2, result));

// The h of a warp, then its dz, (32, 16): eight adjacent units. The upper four of eight rows are
// swapped in pairs, so that the layout suits both results and fragments.
__host__ __device__ constexpr int kept_at(int row, int unit) {
  return (unit / 8 * kNarrowRows + (row ^ (row >> 2 & 1))) * 8 + unit % 8;
}
constexpr int kept_result(int lane) { return kept_at(lane / 4, lane % 4 * 2); }
constexpr int kept_across(int lane) { return kept_at(lane % 4 * 2, lane / 4); }
static_assert(meet_no_bank_twice(16, 2, kept_result) && meet_no_bank_twice(32, 1, kept_across));

// Offsets in floats; those that do not depend on the sizes are compile-time constants.
struct NarrowLayout {
  static constexpr int x = 0;  // (32, stride)
  static constexpr int dlogits = x + kNarrowTile;
  static constexpr int dx = dlogits + kNarrowTile;
  // a tile of the embedding's gradient may go past the last column
  static constexpr int losses = dx + kNarrowTile + 4;   // (32)
  static constexpr int b2 = losses + kNarrowRows;       // (32)
  static constexpr int norms = b2 + kNarrowWidth;       // kMostWarps doubles
  static constexpr int rows = norms + 2 * kMostWarps;   // (32) int32: of the next block of rows
  static constexpr int constants = rows + kNarrowRows;  // StepConstants of this step and the next
  // Dropout of the input and of the hidden layer, in the call's first step
  static constexpr int dropouts = constants + 2 * sizeof(StepConstants) / sizeof(float);
  // (2, T + 1, 32) int32: of this block of rows and of the next; last, targets
  static constexpr int ids = dropouts + 2 * sizeof(Dropout) / sizeof(float);

  int warps;
  int w1, w2;  // (16 * warps, stride): the weight of the hidden layer; of the output,
               // transposed: a row for each hidden unit
  int b1;      // (16 * warps)
  int parts;   // (warps, 32, part stride): of the logits, then of dx; in between a warp keeps its
               // h, then its dz in its own (kept_at)
  int embedding;   // (V, D)
  int dembedding;  // (V, D), where gradients are summed
  int total;

  __host__ __device__ __forceinline__ NarrowLayout(const ModelSizes& z, bool sums) {
    const int table = (z.V * z.D + 3) / 4 * 4;
    warps = (z.hidden[0] + kNarrowUnits - 1) / kNarrowUnits;
    embedding = ids + 2 * (z.T + 1) * kNarrowRows;
    dembedding = embedding + table;
    b1 = dembedding + (sums ? table : 0);
    w1 = b1 + warps * kNarrowUnits;
    w2 = w1 + warps * kNarrowUnits * kNarrowStride;
    parts = w2 + warps * kNarrowUnits * kNarrowStride;
    total = parts + warps * kNarrowPart;
  }
};
static_assert(NarrowLayout::norms % 2 == 0 && NarrowLayout::constants % 4 == 0 &&
              NarrowLayout::dropouts % 4 == 0 && NarrowLayout::ids % 4 == 0);

// Whether gradients are summed over blocks of rows, or must be complete before any update.
__host__ __device__ __forceinline__ bool narrow_sums(int64_t N, bool clips) {
  return N > kNarrowRows || clips;
}

// If so, those of the weights are in the workspace: for each warp as its lanes hold them, w1 and w2
// (4, 32, 4) each and b1 (16); b2 (32) last.
constexpr int kNarrowWarpSums = 2 * kNarrowUnits * kNarrowWidth + kNarrowUnits;

inline size_t narrow_workspace(const TrainSteps& a) {
  if (!narrow_sums(a.N, a.max_grad_norm < INFINITY)) return 0;
  const int64_t warps = (a.model.hidden[0] + kNarrowUnits - 1) / kNarrowUnits;
  return static_cast<size_t>(warps * kNarrowWarpSums + kNarrowWidth);
}

inline bool narrow_fits(const TrainSteps& a, size_t shared_limit) {
  const MLP& m = a.model;
  if (m.L != 1 || m.hidden[0] > kNarrowUnits * kNarrowMostWarps || m.T * m.D > kNarrowWidth ||
      m.C > kNarrowWidth || m.V * m.D > 1 << 16 || a.examples.rows > INT32_MAX)
    return false;
  const NarrowLayout layout(model_sizes(m), narrow_sums(a.N, a.max_grad_norm < INFINITY));
  return layout.total * sizeof(float) <= shared_limit;
}

}  // namespace
}  // namespace mlpkern::cuda
