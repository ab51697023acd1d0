// evaluate on a CPU: mean loss and accuracy over all rows (see kernels.h), a block of rows at a
// time, so that the logits of all rows are never in memory at once. The first layer is folded where
// that pays (mlp/fold.h). Threads share the blocks and the models; the sums of the blocks are added
// in order, so the bits do not depend on the threads. A long evaluation runs in pieces, so that it
// can end early.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx2 -march=haswell -c csrc/cpu/evaluate.cpp
#include "cpu/mlp/fold.h"
#include "cpu/threads/parallel.h"
#include "cpu/threads/pieces.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kBlockRows = 256;

struct BlockSums {
  double loss;
  int64_t right;
};

// Sum of losses and number of right predictions of kLanes rows from `begin` on. The prediction is
// the first of the classes with the largest logit.
template <class A>
BlockSums sums_of_vector(const Activations<A>& s, int64_t C, int64_t begin) {
  constexpr int64_t L = kLanes<A>;
  const A* z = s.logits.data + begin;
  const int64_t step = s.logits.step;
  vec_t<A> largest = load(z), best = {}, sum = {};
  for (int64_t c = 1; c < C; ++c) {
    const vec_t<A> z_c = load(z + c * step);
    best = z_c > largest ? splat(static_cast<A>(c)) : best;
    largest = maximum(largest, z_c);
  }
  for (int64_t c = 0; c < C; ++c) sum += exp_nonpositive(load(z + c * step) - largest);
  const vec_t<A> log_sum = log_of_sum(sum);
  BlockSums result{0, 0};
  for (int64_t n = 0; n < L && begin + n < s.rows; ++n) {
    const int64_t target = s.targets[begin + n];
    result.loss += static_cast<double>(log_sum[n] - (z[target * step + n] - largest[n]));
    result.right += static_cast<int64_t>(best[n]) == target;
  }
  return result;
}

template <class A>
struct Slot {
  Activations<A> activations;
  int32_t* slots;
  int64_t bytes;

  Slot(const Evaluate& a, const Sizes& z, void* memory) {
    Arena arena(memory);
    const int64_t rows = a.examples.rows < kBlockRows ? a.examples.rows : kBlockRows;
    activations = take_activations<A>(arena, z, rows, rows);
    slots = arena.take<int32_t>(z.folds ? round_up(rows, kLanes<A>) * z.T : 0);
    bytes = static_cast<int64_t>(arena.used());
    if (memory) set_ones(activations, z);
  }
};

int64_t slots(const Evaluate& a) {
  const int64_t threads = max_threads() < kMaxWorkers ? max_threads() : kMaxWorkers;
  const int64_t blocks = ceil_div(a.examples.rows, kBlockRows);
  return blocks < threads ? blocks : threads;
}

template <class A>
struct Layout {
  Sizes z;
  Weights<A> weights;
  Fold<A> fold;
  BlockSums* sums;
  char* slots;
  int64_t slot_bytes;
  size_t bytes;

  Layout(const Evaluate& a, void* memory)
      : z(a.model, fold_pays<A>(Sizes(a.model), a.examples.rows)) {
    Arena arena(memory);
    weights = take_weights<A>(arena, z);
    if (z.folds) fold = take_fold<A>(arena, z, a.examples.rows);
    sums = arena.take<BlockSums>(ceil_div(a.examples.rows, kBlockRows));
    slots = arena.take<char>(0);
    slot_bytes = Slot<A>(a, z, nullptr).bytes;
    bytes = arena.used() + static_cast<size_t>(MLPKERN_ISA::slots(a) * slot_bytes);
  }
};

template <class A>
int64_t run(const Evaluate& a) {
  const LongCall long_call;
  Layout<A> layout(a, a.workspace);
  const Sizes& z = layout.z;
  const int64_t rows = a.examples.rows, blocks = ceil_div(rows, kBlockRows);
  const auto work = static_cast<double>(kBlockRows * z.multiply_adds());
  Pieces pieces(a.model.M * blocks, work);
  for (int64_t m = 0; m < a.model.M; ++m) {
    pack(layout.weights, z, Tensors<A>{a.model.parameters, a.model.model_strides, m});
    if (z.folds) {
      use_all_pairs(layout.fold, z, layout.weights.embedding);
      fill_tables(layout.fold, z, layout.weights, {0, ColumnPanels<A>(z.outputs(0)).count});
    }
    const auto measure = [&](int64_t block, int64_t worker) {
      const Slot<A> slot(a, z, layout.slots + worker * layout.slot_bytes);
      Activations<A> s = slot.activations;
      const int64_t first = block * kBlockRows;
      s.rows = rows - first < kBlockRows ? rows - first : kBlockRows;
      for (int64_t n = 0; n < s.rows; ++n)
        read_example(a.examples, z.T, first + n, s.ids + n * z.T, s.targets + n);
      const Range all{0, s.rows}, panels{0, s.panels().count};
      if (z.folds) {
        find_slots(slot.slots, layout.fold, z, s.ids, s.rows);
        forward_folded(s, z, layout.fold, slot.slots, all, {0, ceil_div(z.outputs(0), kLanes<A>)});
      } else {
        gather(s, z, layout.weights.embedding, all);
        transpose_input(s, z, all);
      }
      for (int64_t l = z.folds ? 1 : 0; l < z.L; ++l)
        forward_hidden(s, z, layout.weights, l, {0, output_tiles(z, l).count}, panels);
      forward_logits(s, z, layout.weights, {0, output_tiles(z, z.L).count}, panels);
      BlockSums sums{0, 0};
      for (int64_t n = 0; n < s.rows; n += kLanes<A>) {
        const BlockSums part = sums_of_vector(s, z.C, n);
        sums.loss += part.loss;
        sums.right += part.right;
      }
      layout.sums[block] = sums;
    };
    const int64_t before = m * blocks;
    for (int64_t begin = 0, end; begin < blocks; begin = end) {
      end = pieces.end() - before < blocks ? pieces.end() - before : blocks;
      parallel_for_dynamic(end - begin,
                           [&](int64_t i, int64_t worker) { measure(begin + i, worker); });
      if (!pieces.go_on(before + end)) return -1;
    }
    double loss = 0;
    int64_t right = 0;
    for (int64_t block = 0; block < blocks; ++block) {
      loss += layout.sums[block].loss;
      right += layout.sums[block].right;
    }
    a.loss[m] = loss / static_cast<double>(rows);
    a.accuracy[m] = static_cast<double>(right) / static_cast<double>(rows);
  }
  return -1;
}

}  // namespace

size_t evaluate_workspace(const Evaluate& a) {
  return a.model.dtype == DType::f64 ? Layout<double>(a, nullptr).bytes
                                     : Layout<float>(a, nullptr).bytes;
}

int64_t evaluate(const Evaluate& a) {
  return a.model.dtype == DType::f64 ? run<double>(a) : run<float>(a);
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
