// evaluate on a CPU: mean loss and accuracy over all rows, a block of rows at a time, so that no
// logits stay in memory, the first layer folded where it pays (see kernels.h, mlp.h, mlp_fold.h).
// Blocks and models are dealt out to threads; sums are added in order of the blocks, so bits do not
// depend on the threads.
//
// Compile alone:
//   g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx512 -march=skylake-avx512 -c csrc/cpu/evaluate.cpp
#include "cpu/mlp_fold.h"
#include "cpu/parallel.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kBlockRows = 256;

struct BlockSums {
  double loss;
  int64_t right;
};

// Sum of losses and number of right predictions of kLanes rows from `begin` on; of classes with
// equal logits the first is the prediction.
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
  int64_t bytes;

  Slot(const Evaluate& a, void* memory) {
    Arena arena(memory);
    const int64_t rows = a.examples.rows < kBlockRows ? a.examples.rows : kBlockRows;
    activations = take_activations<A>(arena, Sizes(a.model), rows);
    bytes = static_cast<int64_t>(arena.used());
    if (memory) set_ones(activations, Sizes(a.model));
  }
};

int64_t slots(const Evaluate& a) {
  const int64_t threads = max_threads() < kMaxWorkers ? max_threads() : kMaxWorkers;
  const int64_t blocks = ceil_div(a.examples.rows, kBlockRows);
  return blocks < threads ? blocks : threads;
}

template <class A>
struct Layout {
  Weights<A> weights;
  bool folds;
  Fold<A> fold;
  BlockSums* sums;
  char* slots;
  size_t bytes;

  Layout(const Evaluate& a, void* memory) {
    Arena arena(memory);
    const Sizes z(a.model);
    weights = take_weights<A>(arena, z);
    folds = fold_pays<A>(z, a.examples.rows);
    if (folds) fold = take_fold<A>(arena, z);
    sums = arena.take<BlockSums>(ceil_div(a.examples.rows, kBlockRows));
    slots = arena.take<char>(0);
    bytes = arena.used() + static_cast<size_t>(MLPKERN_ISA::slots(a) * Slot<A>(a, nullptr).bytes);
  }
};

template <class A>
int64_t run(const Evaluate& a) {
  const Sizes z(a.model);
  Layout<A> layout(a, a.workspace);
  const int64_t slot_bytes = Slot<A>(a, nullptr).bytes, rows = a.examples.rows;
  const int64_t blocks = ceil_div(rows, kBlockRows);
  for (int64_t m = 0; m < a.model.M; ++m) {
    pack(layout.weights, z, Tensors<A>{a.model.parameters, a.model.model_strides, m});
    if (layout.folds) fill_tables(layout.fold, z, layout.weights);
    parallel_for_dynamic(blocks, [&](int64_t block, int64_t worker) {
      Activations<A> s = Slot<A>(a, layout.slots + worker * slot_bytes).activations;
      const int64_t first = block * kBlockRows;
      s.rows = rows - first < kBlockRows ? rows - first : kBlockRows;
      for (int64_t n = 0; n < s.rows; ++n)
        read_example(a.examples, z.T, first + n, s.ids + n * z.T, s.targets + n);
      const Range all{0, s.rows}, panels{0, s.panels().count};
      if (layout.folds) {
        forward_folded(s, z, layout.fold);
      } else {
        gather(s, z, layout.weights.embedding, all);
        transpose_input(s, z, all);
      }
      for (int64_t l = layout.folds ? 1 : 0; l < z.L; ++l)
        forward_hidden(s, z, layout.weights, l, {0, output_tiles(z, l).count}, panels);
      forward_logits(s, z, layout.weights, {0, output_tiles(z, z.L).count}, panels);
      BlockSums sums{0, 0};
      for (int64_t n = 0; n < s.rows; n += kLanes<A>) {
        const BlockSums part = sums_of_vector(s, z.C, n);
        sums.loss += part.loss;
        sums.right += part.right;
      }
      layout.sums[block] = sums;
    });
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
