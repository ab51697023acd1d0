// The training of one model: packing, the steps, unpacking.
//
// A model stays packed for the whole call, in memory of its own. The scratch belongs to a thread,
// which uses it for one model after another (trainer_state.h).
//
// A step cuts the batch into blocks of at most kBlockRows rows. For each block
//   block_pass.h     gathers, computes the layers, the loss, dz of every layer and dx; only reads
//                    the weights
//   gradient_pass.h  computes the gradients of the weights and of the embedding from those
// Where it pays the first layer is folded (mlp/fold.h): the gradients of its weight and of the
// embedding are then formed from sums over the whole batch.
// With a single block and no clipping the gradient pass applies the optimizer to each tile of a
// weight while the tile is in L1, and no gradient is ever stored. Otherwise the gradients are
// summed over the blocks, and a separate pass updates the parameters.
//
// Several threads share a step by rows of the batch or by tiles. Every number comes from the same
// operations in the same order, so the bits depend neither on the number of threads nor on how they
// share the work.
//
// Frozen tensors (frozen.h) are never written, and the backward pass ends at the lowest layer that
// a trained tensor needs. A layer with only one frozen tensor is updated by the separate pass.
#pragma once

#include <cmath>
#include <limits>

#include "cpu/mlp/training/block_pass.h"
#include "cpu/mlp/training/gradient_pass.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

template <class A>
class Trainer {
 public:
  // Without memory only packed_bytes() and scratch_bytes() are of use.
  Trainer(const TrainSteps& a, void* packed, void* scratch, bool threads, bool folds)
      : t(a, packed, scratch, threads, folds) {}
  size_t packed_bytes() const { return t.packed_bytes; }
  size_t scratch_bytes() const { return t.scratch_bytes; }

  // Runs steps [begin, end) of a model: packs it before step 0, and unpacks it after the last step
  // or after the step that stops it.
  void run(int64_t model, int64_t begin, int64_t end) {
    A* losses = static_cast<A*>(t.a.losses) + model * t.a.S;
    int64_t s = begin;
    if (t.a.stopped[model] < 0) {
      if (begin == 0) load_model(model);
      use_model(model);
      for (; s < end && t.a.stopped[model] < 0; ++s) {
        losses[s] = step(model, s);
        if (!std::isfinite(losses[s])) t.a.stopped[model] = t.a.step + s;
      }
      if (s == t.a.S || t.a.stopped[model] >= 0) store_model(model);
    }
    for (; s < end; ++s) losses[s] = std::numeric_limits<A>::quiet_NaN();
  }

  // Unpacks a model that has steps left.
  void end_early(int64_t model) {
    if (t.a.stopped[model] < 0) store_model(model);
  }

 private:
  static Tensors<A> tensors(void* const* pointers, const int64_t* strides, int64_t model) {
    return {pointers, strides, model};
  }

  // body(weights, tensors) for the parameters of model m and what the optimizer keeps of them.
  template <class Body>
  void for_state(int64_t m, const Body& body) {
    body(t.parameters, tensors(t.a.model.parameters, t.a.model.model_strides, m));
    if (t.a.first) body(t.first, tensors(t.a.first, t.a.first_strides, m));
    if (t.a.second) body(t.second, tensors(t.a.second, t.a.second_strides, m));
  }

  // body(l, units) for all units of every layer, whole vectors of them at once.
  template <class Body>
  void for_units(const Body& body) {
    constexpr int64_t L = kLanes<A>;
    for (int64_t l = 0; l <= t.z.L; ++l) {
      const int64_t units = t.z.outputs(l);
      split(t.threads, ceil_div(units, L),
            [&](Range v) { body(l, Range{v.begin * L, v.end * L < units ? v.end * L : units}); });
    }
  }

  void load_model(int64_t m) {
    for_state(m, [&](Weights<A>& w, const Tensors<A>& from) {
      for_units([&](int64_t l, Range units) { pack_units(w, t.z, from, l, units); });
    });
  }

  // Before steps of a model that is packed.
  void use_model(int64_t m) {
    for_state(m, [&](Weights<A>& w, const Tensors<A>& from) {
      w.embedding = from.at(0);  // never packed
    });
    t.embedding.begin_model();
    t.has_decay = t.a.weight_decay[m] != 0;
    t.input_dropout = t.a.input_dropout[m];
    t.hidden_dropout = t.a.hidden_dropout[m];
    // A model without dropout has no masks: masks of ones would give the same result more slowly.
    t.masked = t.backward;
    if (!(t.hidden_dropout > 0))
      for (int64_t l = 0; l < t.z.L; ++l) t.masked.masks[l] = {};
    if (!(t.input_dropout > 0)) t.masked.input_mask = {};
  }

  void store_model(int64_t m) {
    for_state(m, [&](const Weights<A>& w, const Tensors<A>& to) {
      for_units([&](int64_t l, Range units) {
        unpack_units(w, t.z, t.frozen.weight(l) ? nullptr : to.weight(l),
                     t.frozen.bias(l) ? nullptr : to.bias(l), l, units);
      });
    });
  }

  // The loss of step s; updates the parameters unless it is not finite.
  A step(int64_t m, int64_t s) {
    const double lr = t.a.rates[m * t.a.rate_model_stride + s];
    const auto constants = [&](double scale) {
      return step_constants<A>(t.a, m, lr, t.a.step + s + 1, scale);
    };
    double sum = 0;
    t.embedding.begin_step();
    read_batch(m, s);
    if (t.z.folds) begin_fold(t);
    for (int64_t l = 0; l <= t.z.L; ++l)
      if (t.copies_tiles(l))
        split(t.threads, RowTiles(t.z.outputs(l)).count,
              [&](Range tiles) { copy_tiles(t.parameters, t.z, l, tiles); });
    for (int64_t begin = 0; begin < t.a.N; begin += t.block_rows) {
      select_block(begin);
      forward_and_backward(t, m, s, begin);
      for (int64_t n = 0; n < t.activations.rows; ++n) sum += t.masked.losses[n];
      if (t.z.folds) add_to_fold(t, begin);
      if (t.stores_gradients) add_gradients(t, s, begin);
    }
    const A loss = static_cast<A>(sum / static_cast<double>(t.a.N));
    if (!std::isfinite(loss)) return loss;
    if (!t.stores_gradients) {
      const StepConstants<A> c = constants(1);
      for_rule(t.rule, [&](auto rule) { update_from_block<decltype(rule)::value>(t, c, s); });
    } else {
      const StepConstants<A> c = constants(clip_scale(t));
      for_rule(t.rule, [&](auto rule) { update_from_gradients<decltype(rule)::value>(t, c, s); });
    }
    return loss;
  }

  void read_batch(int64_t m, int64_t s) {
    const int64_t at = m * t.a.batch_model_stride + s * t.a.batch_step_stride;
    for (int64_t n = 0; n < t.a.N; ++n) {
      const int64_t row = read_index(t.a.batch_type, t.a.batches, at + n * t.a.batch_row_stride);
      read_example(t.a.examples, t.z.T, row, t.ids + n * t.z.T, t.targets + n);
    }
  }

  void select_block(int64_t begin) {
    t.activations.rows = t.last_block(begin) ? t.a.N - begin : t.block_rows;
    t.activations.ids = t.ids + begin * t.z.T;
    t.activations.targets = t.targets + begin;
  }

  TrainerState<A> t;
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
