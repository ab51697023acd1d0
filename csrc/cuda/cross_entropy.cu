// cross_entropy on a GPU: log-sum-exp forward, softmax - target backward (see kernels.h).
//
// The forward keeps for the backward the maximum of a row and the logarithm of its sum of
// exponentials apart: their rounded sum would lose the low bits of the logarithm where all logits
// of a row share a large offset.
//
//   C <= 256              cross_entropy/tile.cuh: many rows a block, flat through shared memory
//   wider                 cross_entropy/rows_*.cuh: a warp or a block a row
//   above 64 KiB a row    the same, rows cut in pieces of about 32 KiB
//
// The choice between them and all cuts depend on shapes alone: the same bits on every device.
// Losses are added in float64, first within a block, then over the blocks by another kernel
// (cross_entropy/loss.cuh).
//
// Compile alone:
// nvcc -std=c++17 -arch=sm_90 -Icsrc -Xptxas -v -cubin csrc/cuda/cross_entropy.cu
#include "cuda/cross_entropy/rows_backward.cuh"
#include "cuda/cross_entropy/rows_forward.cuh"
#include "cuda/cross_entropy/tile.cuh"

namespace mlpkern::cuda {
namespace {

// Blocks of a forward whose sums the finishing block adds.
constexpr int64_t kMostPartial = 8192;
// Vectors of the longest row that is not cut, and about the vectors of a piece.
constexpr int64_t kWholeVectors = 4096, kPieceVectors = 2048;
constexpr int kVectorsPerThread = 8;
constexpr int64_t kMostBlocks = int64_t{1} << 30;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

int64_t item_bytes(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }
int64_t accumulator_bytes(DType dtype) { return dtype == DType::f64 ? 8 : 4; }

template <class Args>
bool is_narrow(const Args& a) {
  return a.C <= kMostTileClasses;
}

// Whether q (see cross_entropy/loss.cuh) differs from class to class.
template <class Args>
bool is_weighted(const Args& a) {
  return a.target_is_probability || (a.weight && a.label_smoothing != 0);
}

template <class Args>
TilePlan plan_tiles(const Args& a) {
  TilePlan plan;
  const int64_t item = item_bytes(a.dtype);
  plan.lanes = 1;
  while (plan.lanes * kMostHeld < a.C) plan.lanes *= 2;
  const int64_t rows = kTileBytes / (kMostHeld * item * plan.lanes);
  plan.rows = static_cast<int>(rows < kMostTileRows ? rows : kMostTileRows);
  plan.tiles = 1;
  plan.bytes = static_cast<int>(round_up(plan.rows * a.C * item + kVectorBytes, 128));
  return plan;
}

template <class Args>
size_t tile_memory(const Args& a, const TilePlan& plan) {
  return static_cast<size_t>(plan.bytes) * (a.target_is_probability ? 2 : 1);
}

template <class Args>
RowPlan plan_rows(const Args& a) {
  RowPlan plan;
  const int64_t items = kVectorBytes / item_bytes(a.dtype), vectors = ceil_div(a.C, items);
  plan.pieces = vectors > kWholeVectors ? ceil_div(vectors, kPieceVectors) : 1;
  if (a.N > UINT32_MAX / plan.pieces) plan.pieces = 1;
  const int64_t piece = round_up(ceil_div(vectors, plan.pieces), kWarp);  // in vectors
  plan.pieces = ceil_div(vectors, piece);
  plan.piece = static_cast<int>(piece * items);
  plan.team_warps = 1;
  while (plan.team_warps < kMostTeamWarps && plan.team_warps * kWarp * kVectorsPerThread < piece)
    plan.team_warps *= 2;
  plan.teams = plan.team_warps == 1 ? kMostTeams : 1;
  return plan;
}

dim3 block_of(const RowPlan& plan) {
  return dim3(static_cast<unsigned>(plan.team_warps * kWarp * plan.teams));
}

// Distributes all units over at most `most` blocks; returns the number of blocks.
int64_t deal_units(RowPlan* plan, int64_t N, int64_t most) {
  plan->units = N * plan->pieces;
  const int64_t teams = plan->teams;
  const int64_t rounds = ceil_div(ceil_div(plan->units, teams), most);
  plan->units_per_block = static_cast<int>(teams * (rounds > 1 ? rounds : 1));
  return ceil_div(plan->units, plan->units_per_block);
}

// The number of blocks of a forward, each with a pair of sums: at least 1, which writes the outputs
// of an empty batch.
struct ForwardPlan {
  TilePlan tile;
  RowPlan rows;
  int64_t blocks;           // of the first kernel
  int64_t combine_rows;     // of a block of the combine kernel, if rows are cut
  int64_t partial;          // pairs of sums
  size_t statistics_bytes;  // of the pieces

  explicit ForwardPlan(const CrossEntropyForward& a) : combine_rows(0), statistics_bytes(0) {
    if (is_narrow(a)) {
      tile = plan_tiles(a);
      const int64_t tiles = ceil_div(a.N, tile.rows);
      // One block takes up to two tiles, which saves the finishing kernel.
      tile.tiles = tiles <= 2 ? 2 : static_cast<int>(ceil_div(tiles, kMostPartial));
      blocks = partial = tiles ? ceil_div(tiles, tile.tiles) : 1;
      return;
    }
    rows = plan_rows(a);
    blocks = partial = deal_units(&rows, a.N, rows.pieces > 1 ? kMostBlocks : kMostPartial);
    if (rows.pieces > 1) {
      combine_rows = round_up(ceil_div(a.N, kMostPartial), kCombineThreads / kWarp);
      partial = combine_rows ? ceil_div(a.N, combine_rows) : 0;
      statistics_bytes = round_up(a.N * rows.pieces * 4 * accumulator_bytes(a.dtype), 64);
    }
    if (a.N == 0) blocks = partial = 1, rows.pieces = 1;
  }
  size_t bytes() const { return statistics_bytes + (partial > 1 ? partial * sizeof(LossSums) : 0); }
};

template <class T>
cudaError_t forward(const CrossEntropyForward& a, void* stream) {
  const ForwardPlan plan(a);
  const Options<T> o(a);
  auto* const pieces = static_cast<Statistics<acc_t<T>>*>(a.workspace);
  auto* const partial =
      reinterpret_cast<LossSums*>(static_cast<unsigned char*>(a.workspace) + plan.statistics_bytes);
  cudaError_t error;
  if (is_narrow(a)) {
    error = launch<cross_entropy_tile_forward_kernel<T>>(plan.blocks, dim3(kTileThreads),
                                                         tile_memory(a, plan.tile), stream, a, o,
                                                         plan.tile, partial);
  } else {
    const dim3 block = block_of(plan.rows);
    if (is_weighted(a))
      error = launch<cross_entropy_rows_forward_kernel<T, Sums::weighted>>(
          plan.blocks, block, 0, stream, a, o, plan.rows, pieces, partial);
    else if (a.label_smoothing != 0)
      error = launch<cross_entropy_rows_forward_kernel<T, Sums::even>>(
          plan.blocks, block, 0, stream, a, o, plan.rows, pieces, partial);
    else
      error = launch<cross_entropy_rows_forward_kernel<T, Sums::exponentials>>(
          plan.blocks, block, 0, stream, a, o, plan.rows, pieces, partial);
    if (error == cudaSuccess && plan.rows.pieces > 1)
      error = launch<cross_entropy_combine_kernel<T>>(plan.partial, dim3(kCombineThreads), 0,
                                                      stream, a, o, plan.rows.pieces,
                                                      plan.combine_rows, pieces, partial);
  }
  if (error != cudaSuccess || plan.partial == 1) return error;
  return launch<cross_entropy_finish_kernel<T>>(1, dim3(kFinishThreads), 0, stream, a, partial,
                                                static_cast<int>(plan.partial));
}

// Accumulators in the workspace of a backward of wide rows: the sums of q over the pieces, or the
// sum of the class weights.
int64_t backward_sums(const CrossEntropyBackward& a, const RowPlan& plan) {
  if (a.target_is_probability) return plan.pieces > 1 ? a.N * plan.pieces : 0;
  return a.weight && a.label_smoothing != 0 ? 1 : 0;
}

template <class T>
cudaError_t backward(const CrossEntropyBackward& a, void* stream) {
  if (a.N == 0 || a.C == 0) return cudaSuccess;
  const Options<T> o(a);
  if (is_narrow(a)) {
    const TilePlan plan = plan_tiles(a);
    return launch<cross_entropy_tile_backward_kernel<T>>(
        ceil_div(a.N, plan.rows), dim3(kTileThreads), tile_memory(a, plan), stream, a, o, plan);
  }
  RowPlan plan = plan_rows(a);
  const int64_t blocks = deal_units(&plan, a.N, kMostBlocks);
  const dim3 block = block_of(plan);
  auto* const sums = backward_sums(a, plan) ? static_cast<acc_t<T>*>(a.workspace) : nullptr;
  cudaError_t error = cudaSuccess;
  if (sums)
    error =
        a.target_is_probability
            ? launch<cross_entropy_mass_kernel<T>>(blocks, block, 0, stream, a, o, plan, sums)
            : launch<cross_entropy_weight_sum_kernel<T>>(
                  1, dim3(kWeightThreads), 0, stream, static_cast<const T*>(a.weight), a.C, sums);
  if (error != cudaSuccess) return error;
  return is_weighted(a)
             ? launch<cross_entropy_rows_backward_kernel<T, true>>(
                   blocks, block, 0, stream, a, o, plan, static_cast<const acc_t<T>*>(sums))
             : launch<cross_entropy_rows_backward_kernel<T, false>>(
                   blocks, block, 0, stream, a, o, plan, static_cast<const acc_t<T>*>(sums));
}

}  // namespace

size_t cross_entropy_forward_workspace(const CrossEntropyForward& args) {
  return ForwardPlan(args).bytes();
}

int cross_entropy_forward(const CrossEntropyForward& args, void* stream) {
  return for_dtype(args.dtype, [&](auto element) {
    return forward<typename decltype(element)::type>(args, stream);
  });
}

size_t cross_entropy_backward_workspace(const CrossEntropyBackward& args) {
  if (is_narrow(args)) return 0;
  return static_cast<size_t>(backward_sums(args, plan_rows(args))) * accumulator_bytes(args.dtype);
}

int cross_entropy_backward(const CrossEntropyBackward& args, void* stream) {
  return for_dtype(args.dtype, [&](auto element) {
    return backward<typename decltype(element)::type>(args, stream);
  });
}

}  // namespace mlpkern::cuda
