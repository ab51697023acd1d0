// The forward and backward pass of a block of rows, and the sums of the folded first layer.
#pragma once

#include "cpu/mlp/training/backward.h"
#include "cpu/mlp/training/split.h"
#include "cpu/mlp/training/trainer_state.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

template <class A>
inline Range rows_of(const TrainerState<A>& t, Range panels) {
  const int64_t last = panels.end * kTileColumns<A>;
  return {panels.begin * kTileColumns<A>, last < t.activations.rows ? last : t.activations.rows};
}

template <class A>
inline int64_t weight_bytes(const TrainerState<A>& t) {
  return t.z.multiply_adds() * static_cast<int64_t>(sizeof(A));
}

// Weights that fit L2 are read once per panel, so that the activations stay near; larger ones
// once per group of panels.
template <class A>
inline int64_t panels_per_task(const TrainerState<A>& t, int64_t panels) {
  if (weight_bytes(t) <= kNearWeightBytes) return 1;
  const int64_t share = t.threads ? ceil_div(panels, 2 * max_threads()) : panels;
  return share < kGroupPanels ? share : kGroupPanels;
}

template <class A>
inline void draw_masks(TrainerState<A>& t, int64_t m, int64_t s, int64_t begin, Range rows) {
  const uint64_t seed = static_cast<uint64_t>(t.a.seeds[m]);
  DropoutKey key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                 static_cast<uint32_t>(t.a.step + s), static_cast<uint32_t>(t.a.streams[m]) << 8};
  for (int64_t l = 0; l < t.z.L; ++l) {
    if (!t.masked.masks[l].data) continue;
    DropoutKey at = key;
    at.stream_layer |= static_cast<uint32_t>(l + 1);
    dropout_mask(t.masked.masks[l].data, t.masked.masks[l].step, t.z.outputs(l), rows, begin,
                 t.hidden_dropout, at);
  }
  if (!t.masked.input_mask.data) return;
  const Matrix<A>&drawn = t.masked.drawn_mask, &mask = t.masked.input_mask, &x = t.activations.x;
  const int64_t K = t.z.inputs(0);
  dropout_mask(drawn.data, drawn.step, K, rows, begin, t.input_dropout, key);
  pack_transposed(mask.row(rows.begin), mask.step, drawn.data + rows.begin, drawn.step, K,
                  rows.end - rows.begin);
  for (int64_t n = rows.begin; n < rows.end; ++n)
    for (int64_t k = 0; k < K; ++k) x.row(n)[k] *= mask.row(n)[k];
}

// Forward and backward of the rows of some panels. With ShareTiles the threads share this work: the
// products by tiles of the weights, the rest by panels.
template <bool ShareTiles, class A>
inline void run_panels(TrainerState<A>& t, int64_t m, int64_t s, int64_t begin, Range panels) {
  const Activations<A>& act = t.activations;
  const auto by_tiles = [&](int64_t units, const auto& body) {
    split(ShareTiles, RowTiles(units).count, body);
  };
  const auto by_panels = [&](const auto& body) {
    split(ShareTiles, panels.end - panels.begin, [&](Range part) {
      const Range here{panels.begin + part.begin, panels.begin + part.end};
      body(here, rows_of(t, here));
    });
  };
  by_panels([&](Range, Range rows) {
    if (!t.z.folds) gather(act, t.z, t.parameters.embedding, rows);
    if (t.a.dropout) draw_masks(t, m, s, begin, rows);
    if (!t.z.folds) transpose_input(act, t.z, rows);
  });
  if (t.z.folds)
    split(ShareTiles, ceil_div(t.z.outputs(0), kLanes<A>), [&](Range vectors) {
      forward_folded(act, t.z, t.fold, t.slots + begin * t.z.T, rows_of(t, panels), vectors,
                     t.masked.masks[0]);
    });
  for (int64_t l = t.z.folds ? 1 : 0; l < t.z.L; ++l)
    by_tiles(t.z.outputs(l), [&](Range tiles) {
      forward_hidden(act, t.z, t.parameters, l, tiles, panels, t.masked.masks[l]);
    });
  by_tiles(t.z.C, [&](Range tiles) { forward_logits(act, t.z, t.parameters, tiles, panels); });
  by_panels([&](Range part, Range rows) {
    loss_and_gradient(act, t.masked, t.z.C, part, t.a.N, t.a.label_smoothing);
    transpose_layer(act, t.masked, t.z, t.z.L, rows);
  });
  for (int64_t l = t.z.L; l > t.lowest_dz; --l) {
    if (t.z.by_rows(l)) {
      const Range rows = rows_of(t, panels);
      split(ShareTiles, ColumnPanels<A>(t.z.inputs(l)).count, [&](Range columns) {
        backward_rows(t.masked, t.z, t.parameters, l, rows, columns, t.a.N);
      });
      by_panels([&](Range, Range part) { slope_of_rows(act, t.masked, t.z, l, part); });
    } else {
      by_tiles(t.z.inputs(l), [&](Range tiles) {
        backward_hidden(act, t.masked, t.z, t.parameters, l, tiles, panels);
      });
    }
    if (l > 1)
      by_panels([&](Range, Range rows) { transpose_layer(act, t.masked, t.z, l - 1, rows); });
  }
  if (t.z.folds) {
    if (t.lowest_dz == 0)
      by_panels([&](Range, Range rows) { transpose_first(t.fold_gradient, t.masked, t.z, rows); });
    return;
  }
  if (t.frozen.embedding()) return;
  by_panels([&](Range, Range rows) {
    const Range columns{0, ColumnPanels<A>(t.z.inputs(0)).count};
    backward_rows(t.masked, t.z, t.parameters, 0, rows, columns, t.a.N);
  });
}

template <class A>
inline void forward_and_backward(TrainerState<A>& t, int64_t m, int64_t s, int64_t begin) {
  const int64_t panels = t.activations.panels().count;
  const int64_t group = panels_per_task(t, panels);
  const int64_t tasks = ceil_div(panels, group);
  // With few rows, or with weights so large that reading them once per task costs too much, the
  // threads share the tiles of each product instead.
  if (t.threads &&
      (tasks < max_threads() || weight_bytes(t) > kFarWeight * static_cast<int64_t>(sizeof(A)))) {
    run_panels<true>(t, m, s, begin, {0, panels});
    return;
  }
  const auto body = [&](int64_t task) {
    const int64_t first = task * group;
    run_panels<false>(t, m, s, begin, {first, first + group < panels ? first + group : panels});
  };
  if (!t.threads)
    for (int64_t task = 0; task < tasks; ++task) body(task);
  else
    parallel_for(tasks, body);
}

template <class A>
inline void begin_fold(TrainerState<A>& t) {
  use_pairs_of(t.fold, t.z, t.parameters.embedding, t.ids, t.a.N);
  find_slots(t.slots, t.fold, t.z, t.ids, t.a.N);
  split_evenly(t.threads, t.parts(0), [&](Range columns) {
    fill_tables(t.fold, t.z, t.parameters, columns);
    if (!t.frozen.embedding()) keep_weight(t.fold_gradient, t.z, t.parameters, columns);
  });
}

// After the last block also forms the gradient of the embedding.
template <class A>
inline void add_to_fold(TrainerState<A>& t, int64_t begin) {
  if (t.lowest_dz > 0) return;
  sort_by_slots(t.fold_gradient, t.fold, t.z, t.slots + begin * t.z.T, t.activations.rows);
  split_evenly(t.threads, t.parts(0), [&](Range columns) {
    sum_by_slots(t.fold_gradient, t.fold, t.z, columns, begin == 0);
  });
  if (t.last_block(begin) && !t.frozen.embedding())
    split_evenly(t.threads, t.z.T * kPositionParts,
                 [&](Range slots) { embedding_by_slots(t.fold_gradient, t.fold, t.z, slots); });
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
