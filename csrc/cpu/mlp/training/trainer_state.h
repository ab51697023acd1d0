// What the steps of one model work on: its sizes, the packed model and the scratch of a thread.
#pragma once

#include <cmath>

#include "cpu/mlp/training/embedding_update.h"
#include "cpu/mlp/training/fold_backward.h"
#include "cpu/mlp/training/frozen.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kBlockRows = 512;
constexpr int64_t kNearWeightBytes = 1 << 19;  // weights that stay in L2 beside the activations
constexpr int64_t kFewRows = 256;              // too few for a copy of a weight

inline int64_t rows_per_block(const TrainSteps& a) {
  if (a.N <= kBlockRows) return a.N;
  const int64_t blocks = ceil_div(a.N, kBlockRows);
  return round_up(ceil_div(a.N, blocks), 32);  // whole column panels of every instruction set
}

template <class A>
struct TrainerState {
  // Lays out the packed model and the scratch. With null pointers only the sizes are of use.
  TrainerState(const TrainSteps& a, void* packed, void* scratch, bool threads, bool folds)
      : a(a),
        z(a.model, folds),
        frozen{a.frozen, a.model.L},
        lowest_dz(frozen.lowest_dz()),
        rule(rule_of(a)),
        threads(threads),
        block_rows(rows_per_block(a)),
        stores_gradients(a.N > block_rows || std::isfinite(a.max_grad_norm) ||
                         frozen.part_of_any()) {
    Arena model(packed);
    parameters = take_weights<A>(model, z);
    if (a.first) first = take_weights<A>(model, z);
    if (a.second) second = take_weights<A>(model, z);
    packed_bytes = model.used();
    Arena arena(scratch);
    for (int64_t l = 0; l <= z.L; ++l)
      if (copies_tiles(l))
        parameters.tiles[l] = arena.take<A>(RowTiles(z.outputs(l)).count * tile_step<A>(z, l));
    if (stores_gradients) gradients = take_weights<A>(arena, z);
    activations = take_activations<A>(arena, z, block_rows, a.N);
    ids = activations.ids;
    targets = activations.targets;
    backward = take_backward<A>(arena, z, block_rows, a.dropout);
    if (folds) {
      fold = take_fold<A>(arena, z, a.N);
      fold_gradient = take_fold_gradient<A>(arena, z, a.N, block_rows);
      slots = arena.take<int32_t>(round_up(a.N, kLanes<A>) * z.T);
    }
    Sizes trained = z;
    if (frozen.embedding()) trained.V = 0;  // no row has a gradient
    embedding = take_embedding_gradient<A>(arena, trained, a.N, threads);
    if (scratch) set_ones(activations, z);
    scratch_bytes = arena.used();
  }

  // A weight that does not stay in L2 is read tile by tile in the forward pass of many rows, which
  // is worth a copy in that order.
  bool copies_tiles(int64_t l) const {
    return l > 0 && a.N > kFewRows && !z.by_rows(l) &&
           z.inputs(l) * z.outputs(l) * static_cast<int64_t>(sizeof(A)) > kNearWeightBytes;
  }

  bool last_block(int64_t begin) const { return begin + block_rows >= a.N; }

  // How many parts dweight_l comes in: tiles of its rows, or column panels of a folded layer.
  int64_t parts(int64_t l) const {
    return z.folds && l == 0 ? ColumnPanels<A>(z.outputs(0)).count
                             : RowTiles(z.weight_rows(l)).count;
  }

  const TrainSteps& a;
  const Sizes z;
  const Frozen frozen;
  const int64_t lowest_dz;
  const Rule rule;
  const bool threads;
  const int64_t block_rows;
  const bool stores_gradients;
  size_t packed_bytes = 0, scratch_bytes = 0;
  Weights<A> parameters, first, second, gradients;
  Activations<A> activations;
  Backward<A> backward, masked;  // masked: with the masks of the current model
  EmbeddingGradient<A> embedding;
  int64_t *ids, *targets;  // (N, T), (N,)
  Fold<A> fold;
  FoldGradient<A> fold_gradient;
  int32_t* slots = nullptr;  // (N, T)
  double input_dropout = 0, hidden_dropout = 0;
  bool has_decay = false;
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
