// The training of one model: its workspace, and the steps of train_steps.cpp.
//
// A model stays packed for the whole call, in memory of its own; a thread has scratch, which it
// uses for one model after another.
//
// A step cuts the batch into blocks of at most kBlockRows rows. For each block
//   forward and backward  gather, layers, loss, dz of every layer, dx; reads the weights only
//   gradients             weight gradients and the embedding's, from what the first part left
// Where it pays the first layer is folded (fold.h): then its weight and the embedding have
// their gradients from sums over the whole batch.
// With a single block and no clipping the second part applies the optimizer to each tile of a
// weight while it is in L1, and no gradient is ever stored. Otherwise gradients are summed over the
// blocks, and a pass of its own updates the parameters.
//
// With several threads the parts of a step are shared by rows of the batch or by tiles. Every
// number comes from the same operations in the same order, so bits depend neither on that nor on
// them.
//
// What is frozen (frozen.h) is never written, and the backward pass ends at the lowest layer that
// something trained needs. A layer frozen in part takes the pass of its own.
#pragma once

#include <cmath>
#include <limits>

#include "cpu/mlp/backward.h"
#include "cpu/mlp/embedding_update.h"
#include "cpu/mlp/fold_backward.h"
#include "cpu/mlp/frozen.h"
#include "cpu/mlp/split.h"
#include "cpu/mlp/weight_update.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kBlockRows = 512;
constexpr int64_t kNearWeightBytes = 1 << 19;  // weights that stay in L2 beside the activations
constexpr int64_t kFewRows = 256;              // not worth a copy of a weight

inline int64_t rows_per_block(const TrainSteps& a) {
  if (a.N <= kBlockRows) return a.N;
  const int64_t blocks = ceil_div(a.N, kBlockRows);
  return round_up(ceil_div(a.N, blocks), 32);  // whole column panels of every instruction set
}

template <class A>
class Trainer {
 public:
  // Lays out a model and the scratch to train it. Without memory only the sizes count.
  Trainer(const TrainSteps& a, void* packed, void* scratch, bool threads, bool folds)
      : a_(a),
        z_(a.model, folds),
        frozen_{a.frozen, a.model.L},
        lowest_dz_(frozen_.lowest_dz()),
        rule_(rule_of(a)),
        threads_(threads),
        block_rows_(rows_per_block(a)),
        stores_gradients_(a.N > block_rows_ || std::isfinite(a.max_grad_norm) ||
                          frozen_.part_of_any()) {
    Arena model(packed);
    parameters_ = take_weights<A>(model, z_);
    if (a.first) first_ = take_weights<A>(model, z_);
    if (a.second) second_ = take_weights<A>(model, z_);
    packed_bytes_ = model.used();
    Arena arena(scratch);
    for (int64_t l = 0; l <= z_.L; ++l)
      if (copies_tiles(l))
        parameters_.tiles[l] = arena.take<A>(RowTiles(z_.outputs(l)).count * tile_step<A>(z_, l));
    if (stores_gradients_) gradients_ = take_weights<A>(arena, z_);
    activations_ = take_activations<A>(arena, z_, block_rows_, a.N);
    ids_ = activations_.ids;
    targets_ = activations_.targets;
    backward_ = take_backward<A>(arena, z_, block_rows_, a.dropout);
    if (folds) {
      fold_ = take_fold<A>(arena, z_, a.N);
      fold_gradient_ = take_fold_gradient<A>(arena, z_, a.N, block_rows_);
      slots_ = arena.take<int32_t>(round_up(a.N, kLanes<A>) * z_.T);
    }
    Sizes trained = z_;
    if (frozen_.embedding()) trained.V = 0;  // no row has a gradient
    embedding_ = take_embedding_gradient<A>(arena, trained, a.N, threads);
    if (scratch) set_ones(activations_, z_);
    scratch_bytes_ = arena.used();
  }
  size_t packed_bytes() const { return packed_bytes_; }
  size_t scratch_bytes() const { return scratch_bytes_; }

  // Steps [begin, end) of a model: packs it before step 0, unpacks it after the last step, or after
  // the one that stops it.
  void run(int64_t model, int64_t begin, int64_t end) {
    A* losses = static_cast<A*>(a_.losses) + model * a_.S;
    int64_t s = begin;
    if (a_.stopped[model] < 0) {
      if (begin == 0) load_model(model);
      use_model(model);
      for (; s < end && a_.stopped[model] < 0; ++s) {
        losses[s] = step(model, s);
        if (!std::isfinite(losses[s])) a_.stopped[model] = a_.step + s;
      }
      if (s == a_.S || a_.stopped[model] >= 0) store_model(model);
    }
    for (; s < end; ++s) losses[s] = std::numeric_limits<A>::quiet_NaN();
  }

  // Unpacks a model that is left with steps to do.
  void end_early(int64_t model) {
    if (a_.stopped[model] < 0) store_model(model);
  }

 private:
  static Tensors<A> tensors(void* const* pointers, const int64_t* strides, int64_t model) {
    return {pointers, strides, model};
  }

  // body(weights, tensors) for the parameters of model m and what the optimizer keeps of them.
  template <class Body>
  void for_state(int64_t m, const Body& body) {
    body(parameters_, tensors(a_.model.parameters, a_.model.model_strides, m));
    if (a_.first) body(first_, tensors(a_.first, a_.first_strides, m));
    if (a_.second) body(second_, tensors(a_.second, a_.second_strides, m));
  }

  // body(l, units) for all units of every layer, whole vectors of them at once.
  template <class Body>
  void for_units(const Body& body) {
    constexpr int64_t L = kLanes<A>;
    for (int64_t l = 0; l <= z_.L; ++l) {
      const int64_t units = z_.outputs(l);
      split(threads_, ceil_div(units, L),
            [&](Range v) { body(l, Range{v.begin * L, v.end * L < units ? v.end * L : units}); });
    }
  }

  void load_model(int64_t m) {
    for_state(m, [&](Weights<A>& w, const Tensors<A>& from) {
      for_units([&](int64_t l, Range units) { pack_units(w, z_, from, l, units); });
    });
  }

  // Before steps of a model that is packed.
  void use_model(int64_t m) {
    for_state(m, [&](Weights<A>& w, const Tensors<A>& from) {
      w.embedding = from.at(0);  // used where it lies
    });
    embedding_.begin_model();
    has_decay_ = a_.weight_decay[m] != 0;
    input_dropout_ = a_.input_dropout[m];
    hidden_dropout_ = a_.hidden_dropout[m];
    // Masks of ones would do for the models that have no dropout, but take time.
    masked_ = backward_;
    if (!(hidden_dropout_ > 0))
      for (int64_t l = 0; l < z_.L; ++l) masked_.masks[l] = {};
    if (!(input_dropout_ > 0)) masked_.input_mask = {};
  }

  void store_model(int64_t m) {
    for_state(m, [&](const Weights<A>& w, const Tensors<A>& to) {
      for_units([&](int64_t l, Range units) {
        unpack_units(w, z_, frozen_.weight(l) ? nullptr : to.weight(l),
                     frozen_.bias(l) ? nullptr : to.bias(l), l, units);
      });
    });
  }

  // The loss of step s; updates the parameters unless it is not finite.
  A step(int64_t m, int64_t s) {
    const double lr = a_.rates[m * a_.rate_model_stride + s];
    const auto constants = [&](double scale) {
      return step_constants<A>(a_, m, lr, a_.step + s + 1, scale);
    };
    double sum = 0;
    embedding_.begin_step();
    read_batch(m, s);
    if (z_.folds) begin_fold();
    for (int64_t l = 0; l <= z_.L; ++l)
      if (copies_tiles(l))
        split(threads_, RowTiles(z_.outputs(l)).count,
              [&](Range tiles) { copy_tiles(parameters_, z_, l, tiles); });
    for (int64_t begin = 0; begin < a_.N; begin += block_rows_) {
      select_block(begin);
      forward_and_backward(m, s, begin);
      for (int64_t n = 0; n < activations_.rows; ++n) sum += masked_.losses[n];
      if (z_.folds) add_to_fold(begin);
      if (stores_gradients_) add_gradients(s, begin);
    }
    const A loss = static_cast<A>(sum / static_cast<double>(a_.N));
    if (!std::isfinite(loss)) return loss;
    if (!stores_gradients_) {
      const StepConstants<A> c = constants(1);
      for_rule(rule_, [&](auto rule) { update_from_block<decltype(rule)::value>(c, s); });
    } else {
      const StepConstants<A> c = constants(clip_scale());
      for_rule(rule_, [&](auto rule) { update_from_gradients<decltype(rule)::value>(c, s); });
    }
    return loss;
  }

  // A weight that does not stay in L2 is read tile by tile in the forward pass of many rows, which
  // is worth a copy in that order.
  bool copies_tiles(int64_t l) const {
    return l > 0 && a_.N > kFewRows && !z_.by_rows(l) &&
           z_.inputs(l) * z_.outputs(l) * static_cast<int64_t>(sizeof(A)) > kNearWeightBytes;
  }

  void read_batch(int64_t m, int64_t s) {
    const int64_t at = m * a_.batch_model_stride + s * a_.batch_step_stride;
    for (int64_t n = 0; n < a_.N; ++n) {
      const int64_t row = read_index(a_.batch_type, a_.batches, at + n * a_.batch_row_stride);
      read_example(a_.examples, z_.T, row, ids_ + n * z_.T, targets_ + n);
    }
  }

  bool last_block(int64_t begin) const { return begin + block_rows_ >= a_.N; }

  void select_block(int64_t begin) {
    activations_.rows = last_block(begin) ? a_.N - begin : block_rows_;
    activations_.ids = ids_ + begin * z_.T;
    activations_.targets = targets_ + begin;
  }

  // ---- the folded layer ----

  void begin_fold() {
    use_pairs_of(fold_, z_, parameters_.embedding, ids_, a_.N);
    find_slots(slots_, fold_, z_, ids_, a_.N);
    split_evenly(threads_, parts(0), [&](Range columns) {
      fill_tables(fold_, z_, parameters_, columns);
      if (!frozen_.embedding()) keep_weight(fold_gradient_, z_, parameters_, columns);
    });
  }

  // Also what the embedding's gradient is, once the last block has come.
  void add_to_fold(int64_t begin) {
    if (lowest_dz_ > 0) return;
    sort_by_slots(fold_gradient_, fold_, z_, slots_ + begin * z_.T, activations_.rows);
    split_evenly(threads_, parts(0), [&](Range columns) {
      sum_by_slots(fold_gradient_, fold_, z_, columns, begin == 0);
    });
    if (last_block(begin) && !frozen_.embedding())
      split_evenly(threads_, z_.T * kPositionParts,
                   [&](Range slots) { embedding_by_slots(fold_gradient_, fold_, z_, slots); });
  }

  // ---- first part ----

  void forward_and_backward(int64_t m, int64_t s, int64_t begin) {
    const int64_t panels = activations_.panels().count;
    const int64_t group = panels_per_task(panels);
    const int64_t tasks = ceil_div(panels, group);
    // Few rows, or weights that should not be read once per task: share the tiles instead.
    if (threads_ &&
        (tasks < max_threads() || weight_bytes() > kFarWeight * static_cast<int64_t>(sizeof(A)))) {
      run_panels<true>(m, s, begin, {0, panels});
      return;
    }
    const auto body = [&](int64_t task) {
      const int64_t first = task * group;
      run_panels<false>(m, s, begin, {first, first + group < panels ? first + group : panels});
    };
    if (!threads_)
      for (int64_t task = 0; task < tasks; ++task) body(task);
    else
      parallel_for(tasks, body);
  }

  int64_t weight_bytes() const { return z_.multiply_adds() * static_cast<int64_t>(sizeof(A)); }

  // Weights that fit L2 are read once per panel, so that the activations stay near; larger ones
  // once per group of panels.
  int64_t panels_per_task(int64_t panels) const {
    if (weight_bytes() <= kNearWeightBytes) return 1;
    const int64_t share = threads_ ? ceil_div(panels, 2 * max_threads()) : panels;
    return share < kGroupPanels ? share : kGroupPanels;
  }

  // Forward and backward of the rows of some panels; with ShareTiles in parallel, the products by
  // tiles of the weights and the rest by panels.
  template <bool ShareTiles>
  void run_panels(int64_t m, int64_t s, int64_t begin, Range panels) {
    const Activations<A>& act = activations_;
    const auto by_tiles = [&](int64_t units, const auto& body) {
      split(ShareTiles, RowTiles(units).count, body);
    };
    const auto by_panels = [&](const auto& body) {
      split(ShareTiles, panels.end - panels.begin, [&](Range part) {
        const Range here{panels.begin + part.begin, panels.begin + part.end};
        body(here, rows_of(here));
      });
    };
    by_panels([&](Range, Range rows) {
      if (!z_.folds) gather(act, z_, parameters_.embedding, rows);
      if (a_.dropout) draw_masks(m, s, begin, rows);
      if (!z_.folds) transpose_input(act, z_, rows);
    });
    if (z_.folds)
      split(ShareTiles, ceil_div(z_.outputs(0), kLanes<A>), [&](Range vectors) {
        forward_folded(act, z_, fold_, slots_ + begin * z_.T, rows_of(panels), vectors,
                       masked_.masks[0]);
      });
    for (int64_t l = z_.folds ? 1 : 0; l < z_.L; ++l)
      by_tiles(z_.outputs(l), [&](Range t) {
        forward_hidden(act, z_, parameters_, l, t, panels, masked_.masks[l]);
      });
    by_tiles(z_.C, [&](Range t) { forward_logits(act, z_, parameters_, t, panels); });
    by_panels([&](Range part, Range rows) {
      loss_and_gradient(act, masked_, z_.C, part, a_.N, a_.label_smoothing);
      transpose_layer(act, masked_, z_, z_.L, rows);
    });
    for (int64_t l = z_.L; l > lowest_dz_; --l) {
      if (z_.by_rows(l)) {
        const Range rows = rows_of(panels);
        split(ShareTiles, ColumnPanels<A>(z_.inputs(l)).count, [&](Range columns) {
          backward_rows(masked_, z_, parameters_, l, rows, columns, a_.N);
        });
        by_panels([&](Range, Range part) { slope_of_rows(act, masked_, z_, l, part); });
      } else {
        by_tiles(z_.inputs(l),
                 [&](Range t) { backward_hidden(act, masked_, z_, parameters_, l, t, panels); });
      }
      if (l > 1)
        by_panels([&](Range, Range rows) { transpose_layer(act, masked_, z_, l - 1, rows); });
    }
    if (z_.folds) {
      if (lowest_dz_ == 0)
        by_panels([&](Range, Range rows) { transpose_first(fold_gradient_, masked_, z_, rows); });
      return;
    }
    if (frozen_.embedding()) return;
    by_panels([&](Range, Range rows) {
      const Range columns{0, ColumnPanels<A>(z_.inputs(0)).count};
      backward_rows(masked_, z_, parameters_, 0, rows, columns, a_.N);
    });
  }

  Range rows_of(Range panels) const {
    const int64_t last = panels.end * kTileColumns<A>;
    return {panels.begin * kTileColumns<A>, last < activations_.rows ? last : activations_.rows};
  }

  void draw_masks(int64_t m, int64_t s, int64_t begin, Range rows) {
    const uint64_t seed = static_cast<uint64_t>(a_.seeds[m]);
    DropoutKey key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                   static_cast<uint32_t>(a_.step + s), static_cast<uint32_t>(a_.streams[m]) << 8};
    for (int64_t l = 0; l < z_.L; ++l) {
      if (!masked_.masks[l].data) continue;
      DropoutKey at = key;
      at.stream_layer |= static_cast<uint32_t>(l + 1);
      dropout_mask(masked_.masks[l].data, masked_.masks[l].step, z_.outputs(l), rows, begin,
                   hidden_dropout_, at);
    }
    if (!masked_.input_mask.data) return;
    const Matrix<A>&drawn = masked_.drawn_mask, &mask = masked_.input_mask, &x = activations_.x;
    const int64_t K = z_.inputs(0);
    dropout_mask(drawn.data, drawn.step, K, rows, begin, input_dropout_, key);
    pack_transposed(mask.row(rows.begin), mask.step, drawn.data + rows.begin, drawn.step, K,
                    rows.end - rows.begin);
    for (int64_t n = rows.begin; n < rows.end; ++n)
      for (int64_t k = 0; k < K; ++k) x.row(n)[k] *= mask.row(n)[k];
  }

  // ---- second part ----

  // How many parts dweight_l comes in: tiles of its rows, or column panels of a folded layer.
  int64_t parts(int64_t l) const {
    return z_.folds && l == 0 ? ColumnPanels<A>(z_.outputs(0)).count
                              : RowTiles(z_.weight_rows(l)).count;
  }

  // Calls body(l, parts) for all weights and share(i) for the shares of the embedding, unless they
  // are frozen.
  template <class Body, class Share>
  void for_weights(const Body& body, const Share& share) {
    const bool shares_of_embedding = !frozen_.embedding();
    if (!threads_) {
      if (shares_of_embedding) share(0);
      for (int64_t l = 0; l <= z_.L; ++l)
        if (!frozen_.layer(l)) body(l, Range{0, parts(l)});
      return;
    }
    // A part of each: then every thread has the same work, on the same weights in every step.
    const int64_t threads = max_threads();
    parallel_for(threads, [&](int64_t thread) {
      const auto part = [&](int64_t count) {
        return Range{count * thread / threads, count * (thread + 1) / threads};
      };
      const Range shares = part(shares_of_embedding ? kMaxShares : 0);
      for (int64_t i = shares.begin; i < shares.end; ++i) share(i);
      for (int64_t l = 0; l <= z_.L; ++l)
        if (!frozen_.layer(l)) body(l, part(parts(l)));
    });
  }

  bool sparse() const { return rule_ == Rule::sgd && !has_decay_; }

  template <Rule rule>
  WeightUpdate<A, rule> weight_update(const StepConstants<A>& c, int64_t l) const {
    return {c,           parameters_.layers[l], first_.layers[l], second_.layers[l],
            bias_row(l), bias_column(l)};
  }

  // Where the bias is in packed weight l, -1 for the axis along which it extends.
  int64_t bias_row(int64_t l) const { return z_.by_rows(l) ? -1 : z_.inputs(l); }
  int64_t bias_column(int64_t l) const { return z_.by_rows(l) ? z_.inputs(l) : -1; }

  // finish(row, column, values) for a part of dweight_l.
  template <class Finish>
  void for_gradient(int64_t l, Range part, const Finish& finish) const {
    if (z_.folds && l == 0)
      folded_weight_gradient(fold_gradient_, fold_, z_, part, finish);
    else
      weight_gradient(activations_, masked_, z_, l, part, finish);
  }

  void add_to_embedding(int64_t share, int64_t s) {
    if (z_.folds)
      embedding_.add(share, s, fold_.ids, 1, fold_gradient_.embedding, fold_.count);
    else
      embedding_.add(share, s, activations_.ids, z_.T, masked_.dx[0], activations_.rows);
  }

  template <Rule rule>
  void update_from_block(const StepConstants<A>& c, int64_t s) {
    for_weights([&](int64_t l, Range part) { for_gradient(l, part, weight_update<rule>(c, l)); },
                [&](int64_t share) {
                  add_to_embedding(share, s);
                  embedding_.template update<rule>(c, share, s, sparse(), parameters_, first_,
                                                   second_);
                });
  }

  void add_gradients(int64_t s, int64_t begin) {
    for_weights(
        [&](int64_t l, Range part) {
          const bool whole = z_.folds && l == 0;  // of the batch
          if (whole && !last_block(begin)) return;
          const Matrix<A> to = gradients_.layers[l];
          const bool first = whole || begin == 0;
          for_gradient(l, part, [to, first](int64_t row, int64_t column, vec_t<A> g) {
            A* at = to.row(row) + column;
            store(at, first ? g : load(at) + g);
          });
        },
        [&](int64_t share) {
          if (!z_.folds || last_block(begin)) add_to_embedding(share, s);
        });
  }

  template <Rule rule>
  void update_from_gradients(const StepConstants<A>& c, int64_t s) {
    for_weights(
        [&](int64_t l, Range part) {
          const int64_t rows = z_.weight_rows(l), count = parts(l);
          const Matrix<A> from = gradients_.layers[l];
          const WeightUpdate<A, rule> update = weight_update<rule>(c, l);
          const auto for_vectors = [&](const auto& body) {
            for (int64_t row = rows * part.begin / count; row < rows * part.end / count; ++row)
              for (int64_t column = 0; column < z_.weight_columns(l); column += kLanes<A>)
                body(row, column, load(from.row(row) + column));
          };
          if (frozen_.part_of(l))
            for_vectors(PartUpdate<A, rule>{update, frozen_.bias(l)});
          else
            for_vectors(update);
        },
        [&](int64_t share) {
          embedding_.template update<rule>(c, share, s, sparse(), parameters_, first_, second_);
        });
  }

  // What torch.nn.utils.clip_grad_norm_ multiplies the gradients with.
  double clip_scale() const {
    if (!std::isfinite(a_.max_grad_norm)) return 1;
    double sum = embedding_.sum_of_squares();
    for (int64_t l = 0; l <= z_.L; ++l) {
      if (frozen_.layer(l)) continue;
      if (frozen_.part_of(l)) clear_frozen(l);
      for (int64_t r = 0; r < z_.weight_rows(l); ++r) {
        const A* row = gradients_.layers[l].row(r);
        vec_t<A> squares = {};  // the padding of a row is zero
        for (int64_t c = 0; c < z_.weight_columns(l); c += kLanes<A>)
          squares += load(row + c) * load(row + c);
        sum += static_cast<double>(reduce_add<A>(squares));
      }
    }
    const double scale = a_.max_grad_norm / (std::sqrt(sum) + 1e-6);
    return scale >= 1 ? 1 : scale;  // a norm of nan gives gradients of nan, as in torch
  }

  // Makes the gradient of the frozen part of layer l zero.
  void clear_frozen(int64_t l) const {
    for (int64_t row = 0; row < z_.weight_rows(l); ++row)
      for (int64_t column = 0; column < z_.weight_columns(l); column += kLanes<A>) {
        const ints_t<A> bias = bias_lanes<A>(row, column, bias_row(l), bias_column(l));
        A* const at = gradients_.layers[l].row(row) + column;
        store(at, (frozen_.bias(l) ? bias : ~bias) ? vec_t<A>{} : load(at));
      }
  }

  const TrainSteps& a_;
  const Sizes z_;
  const Frozen frozen_;
  const int64_t lowest_dz_;
  const Rule rule_;
  const bool threads_;
  const int64_t block_rows_;
  const bool stores_gradients_;
  size_t packed_bytes_ = 0, scratch_bytes_ = 0;
  Weights<A> parameters_, first_, second_, gradients_;
  Activations<A> activations_;
  Backward<A> backward_, masked_;  // masked_: with the masks that the model in work needs
  EmbeddingGradient<A> embedding_;
  int64_t *ids_, *targets_;  // (N, T), (N,)
  Fold<A> fold_;
  FoldGradient<A> fold_gradient_;
  int32_t* slots_ = nullptr;  // (N, T)
  double input_dropout_ = 0, hidden_dropout_ = 0;
  bool has_decay_ = false;
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
