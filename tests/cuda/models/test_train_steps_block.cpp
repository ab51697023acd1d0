// train_steps of a GPU against a plain loop: models that take the kernel of any depth. Optimizers,
// options, sizes around the tiles and blocks of rows; gradients and moments in shared and in global
// memory; chunks, stopped models.
#include <cmath>
#include <vector>

#include "cuda/library.h"
#include "fiber/run/grid.h"
#include "train_runs.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

const MLPSizes kDeep = {19, 3, 6, 14, {35, 20}};
const MLPSizes kSmall = {11, 2, 4, 5, {18, 7}};

// Sets the shared memory that the device gives a block, as long as the object lives.
class SharedLimit {
 public:
  explicit SharedLimit(size_t bytes) : before_(fiber::shared_limit()) {
    fiber::set_shared_limit(bytes);
  }
  ~SharedLimit() { fiber::set_shared_limit(before_); }

 private:
  const size_t before_;
};

ModelPath path_of(const Problem& problem) {
  Trial trial(problem);
  return cuda::train_steps_path(trial.arguments(0, 1, nullptr));
}

// The least shared memory with which this kernel runs the problem.
size_t least_limit(const Problem& problem) {
  size_t no = 0, yes = 227 << 10;
  while (yes - no > 1) {
    const size_t limit = (yes + no) / 2;
    const SharedLimit with(limit);
    (path_of(problem) == ModelPath::block ? yes : no) = limit;
  }
  return yes;
}

void check_block(const Problem& problem) {
  CHECK(path_of(problem) == ModelPath::block, "%s: another kernel takes it", problem.name);
  check(problem);
}

}  // namespace

TEST_CASE(every_optimizer) {
  for (Problem problem : optimizers()) {
    problem.sizes = kDeep;
    problem.N = 9;
    if (quick()) problem.S = 2, problem.sizes = kSmall;
    check_block(problem);
    problem.tf32 = true;
    if (!quick()) check_block(problem);
  }
}

// 99 KB, as much as sm_86, sm_89 and sm_120 give a block.
TEST_CASE(the_model_of_the_lecture_in_little_shared_memory) {
  const SharedLimit limit(99 << 10);
  Problem problem;
  problem.name = "lecture";
  problem.S = quick() ? 1 : 3;
  check_block(problem);
  problem.tf32 = true;
  if (!quick()) check_block(problem);
}

// A block of rows is 32, a tile 16 rows and columns, a warp has 16 columns of 256.
TEST_CASE(sizes_around_the_tiles) {
  const std::vector<MLPSizes> all = {
      {1, 1, 1, 1, {1, 1}},     {2, 1, 1, 33, {2}},
      {17, 4, 8, 16, {16, 15}}, {27, 3, 11, 31, {17}},
      {16, 2, 17, 8, {48}},     {5, 33, 1, 9, {33, 8}},
      {40, 1, 49, 70, {31}},    {9, 17, 3, 40, {270}},
      {7, 16, 3, 48, {9}},      {9, 2, 3, 4, {3, 1, 2, 5, 17, 2, 2, 3}}};
  for (const MLPSizes& sizes : all)
    for (int64_t N : {1, 31, 32}) {
      if (quick() && (N != 31 || (sizes.T != 33 && sizes.C != 70 && sizes.C != 48))) continue;
      Problem problem;
      problem.name = "sizes";
      problem.sizes = sizes, problem.N = N;
      problem.S = 2;
      check_block(problem);
    }
}

TEST_CASE(batches_of_several_blocks_of_rows) {
  for (int64_t N : {33, 64, 100})
    for (bool clips : {false, true}) {
      if (quick() && N != 33) continue;
      Problem problem;
      problem.name = clips ? "blocks, clipped" : "blocks";
      problem.sizes = {13, 3, 5, 9, {18, 7}};
      problem.N = N;
      if (clips) problem.recipe.max_grad_norm = 0.1;
      check_block(problem);
    }
}

TEST_CASE(options) {
  if (quick()) return;  // the next case has all of them
  Problem clipping, smoothing, input_dropout, hidden_dropout;
  clipping.name = "clipping";
  clipping.recipe.max_grad_norm = 0.3;
  smoothing.name = "smoothing";
  smoothing.recipe.label_smoothing = 0.1;
  input_dropout.name = "input dropout";
  input_dropout.recipe.input_dropout = 0.2;
  input_dropout.recipe.seed = -77;
  hidden_dropout.name = "hidden dropout";
  hidden_dropout.recipe.hidden_dropout = 0.5;
  hidden_dropout.rate = 0.1;
  hidden_dropout.step = (int64_t{1} << 32) - 2;  // the counter wraps
  for (Problem problem : {clipping, smoothing, input_dropout, hidden_dropout}) {
    problem.sizes = kDeep;
    problem.M = 2, problem.N = 20;
    check_block(problem);
  }
}

// The amount of shared memory decides where gradients and moments are, but not their values.
TEST_CASE(all_options_of_several_models_wherever_the_moments_lie) {
  for (Optimizer optimizer : {Optimizer::sgd, Optimizer::adamw})
    for (int64_t N : {20, 45}) {
      const bool adamw = optimizer == Optimizer::adamw;
      if (quick() && adamw != (N == 45)) continue;
      Problem problem;
      problem.name = "everything";
      problem.sizes = quick() ? kSmall : kDeep;
      problem.recipe = everything(optimizer);
      problem.rate = adamw ? 0.01 : 0.3;
      problem.recipe.eps = 1e-2;  // with less, the rounding of a tiny gradient becomes a step
      problem.M = quick() ? 2 : 3, problem.N = N, problem.S = 2;
      check_block(problem);
      const SharedLimit limit(least_limit(problem));
      if (!quick() || adamw) check_block(problem);
      problem.recipe.max_grad_norm = INFINITY;
      if (!quick() || !adamw) check_block(problem);
    }
}

TEST_CASE(types_and_strides_of_ids) { check_types_of_ids({11, 3, 4, 11, {16, 8}}); }

TEST_CASE(chunks_give_the_bits_of_one_call) { check_chunks({11, 3, 4, 11, {20, 9}}); }

TEST_CASE(a_model_stops_where_its_loss_is_not_finite) { check_stops({11, 3, 4, 11, {20, 9}}); }

TEST_CASE(frozen_tensors_stay) {
  for (Optimizer optimizer : {Optimizer::sgd, Optimizer::adamw})
    for (int64_t N : {9, 40}) {
      const bool adamw = optimizer == Optimizer::adamw;
      if (quick() && adamw != (N == 40)) continue;
      Problem problem;
      problem.name = "frozen";
      problem.sizes = kSmall;
      problem.recipe = everything(optimizer);
      if (N == 9) problem.recipe.max_grad_norm = INFINITY;
      problem.rate = adamw ? 0.01 : 0.3;
      problem.recipe.eps = 1e-2;  // as above
      problem.S = 2, problem.N = N;
      for (const auto& frozen : frozen_tensors(problem.sizes)) {
        problem.recipe.frozen = frozen;
        check_block(problem);
      }
    }
}
