// train_steps of a GPU against a plain loop: narrow models, every optimizer and option, batches of
// several blocks of rows, chunks, stopped models.
#include <cmath>
#include <vector>

#include "cuda/library.h"
#include "fiber/run/grid.h"
#include "train_runs.h"

using namespace mlpkern;
using namespace mlpkern::testing;

TEST_CASE(the_model_of_the_lecture) {
  Problem problem;
  problem.name = "lecture";
  problem.S = 5;
  if (quick()) problem.S = 2, problem.sizes.hidden = {40};
  check_both(problem);
}

TEST_CASE(every_optimizer) {
  for (Problem problem : optimizers()) {
    problem.sizes = {11, 3, 4, 11, {20}};
    problem.N = 9;
    if (quick())
      check(problem);
    else
      check_both(problem);
  }
}

// A block of rows is 32, a warp has 16 units, a tile 8 columns, a row 32 inputs or classes.
TEST_CASE(sizes_around_the_tiles) {
  const std::vector<MLPSizes> all = {
      {1, 1, 1, 1, {1}},    {2, 1, 1, 2, {2}},   {17, 4, 8, 32, {16}},  {27, 3, 10, 31, {17}},
      {16, 2, 16, 8, {48}}, {5, 32, 1, 9, {33}}, {40, 1, 31, 27, {33}}, {27, 3, 10, 27, {256}}};
  for (const MLPSizes& sizes : all)
    for (int64_t N : {1, 31, 32}) {
      if (quick() && (N != 1 || sizes.hidden[0] > 40)) continue;
      Problem problem;
      problem.name = "sizes";
      problem.sizes = sizes, problem.N = N;
      problem.S = 2;
      check(problem);
    }
}

TEST_CASE(batches_of_several_blocks_of_rows) {
  for (int64_t N : {33, 64, 100})
    for (bool clips : {false, true}) {
      if (quick() && N != 33) continue;
      Problem problem;
      problem.name = clips ? "blocks, clipped" : "blocks";
      problem.sizes = {13, 3, 5, 9, {18}};
      problem.N = N;
      if (clips) problem.recipe.max_grad_norm = 0.1;
      check(problem);
    }
}

TEST_CASE(options) {
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
  hidden_dropout.step = (int64_t{1} << 32) - 2;  // the counter wraps
  for (Problem problem : {clipping, smoothing, input_dropout, hidden_dropout}) {
    problem.sizes = {11, 3, 5, 11, {37}};
    problem.M = quick() ? 1 : 2;
    check(problem);
  }
}

TEST_CASE(all_options_of_several_models) {
  for (Optimizer optimizer : {Optimizer::sgd, Optimizer::adamw})
    for (int64_t N : {20, 45}) {
      Problem problem;
      problem.name = "everything";
      problem.sizes = {19, 3, 6, 14, {35}};
      problem.recipe = everything(optimizer);
      problem.rate = optimizer == Optimizer::sgd ? 0.3 : 0.01;
      problem.M = quick() ? 2 : 4, problem.N = N;
      if (quick() && (N == 45) != (optimizer == Optimizer::adamw)) continue;
      check(problem);
    }
}

// A grid has at most 65,535 blocks in y and z. All models but three have stopped before, and
// end at once; the three have the same bits as each alone.
TEST_CASE(more_models_than_65535) {
  if (quick()) return;
  Problem problem;
  problem.name = "many models";
  problem.sizes = {2, 1, 1, 2, {1}};
  problem.M = 65537, problem.N = 2, problem.S = 2;
  Trial trial(problem);
  for (int64_t m = 0; m < problem.M; ++m) trial.stopped.set(m, 0);
  for (int64_t m : {0, 65535, 65536}) trial.stopped.set(m, -1);
  CHECK(trial.run() == 0, "a CUDA error");
  std::vector<std::vector<double>> among;
  for (int64_t m : {0, 1, 65535, 65536}) among.push_back(trial.result(m));
  CHECK(std::isnan(trial.loss(1, 0)), "a model that had stopped went on");

  trial.restore();
  for (int64_t m : {0, 65535, 65536}) {
    Values losses(DType::f32, problem.S);
    TrainSteps one = trial.arguments(0, problem.S, losses.data());
    std::vector<void*> parameters;
    for (size_t i = 0; i < 5; ++i)
      parameters.push_back(static_cast<float*>(one.model.parameters[i]) +
                           m * one.model.model_strides[i]);
    one.model.M = 1, one.model.parameters = parameters.data();
    one.batches = static_cast<const int64_t*>(one.batches) + m * one.batch_model_stride;
    one.rates += m * one.rate_model_stride, one.stopped += m, one.weight_decay += m;
    one.input_dropout += m, one.hidden_dropout += m, one.seeds += m, one.streams += m;
    CHECK(launch_train_steps(one) == 0, "a CUDA error");
    for (int64_t s = 0; s < problem.S; ++s) trial.losses.set(m * problem.S + s, losses.get(s));
    CHECK(same(trial.result(m), among[m < 2 ? 0 : static_cast<size_t>(m - 65533)]),
          "model %lld has other bits among many", static_cast<long long>(m));
  }
}

TEST_CASE(types_and_strides_of_ids) { check_types_of_ids({11, 3, 4, 11, {16}}); }

TEST_CASE(chunks_give_the_bits_of_one_call) { check_chunks({11, 3, 4, 11, {20}}); }

TEST_CASE(a_model_stops_where_its_loss_is_not_finite) { check_stops({11, 3, 4, 11, {20}}); }

TEST_CASE(paths_follow_from_sizes_and_shared_memory) {
  const auto path = [](const MLPSizes& sizes, int64_t N, DType dtype = DType::f32) {
    Problem problem;
    problem.sizes = sizes, problem.N = N, problem.dtype = dtype;
    Trial trial(problem);
    return cuda::train_steps_path(trial.arguments(0, 1, nullptr));
  };
  const MLPSizes lecture = {27, 3, 10, 27, {200}};
  CHECK(path(lecture, 32) == ModelPath::narrow, "the model of the lecture is narrow");
  CHECK(path(lecture, 4000) == ModelPath::narrow, "batches of any size are");
  CHECK(path(lecture, 32, DType::f64) == ModelPath::none, "float64 has no kernel");
  CHECK(path({27, 3, 10, 27, {257}}, 32) != ModelPath::narrow, "more units than warps have");
  CHECK(path({27, 3, 11, 27, {200}}, 32) != ModelPath::narrow, "more inputs than lanes");
  CHECK(path({27, 3, 10, 33, {200}}, 32) != ModelPath::narrow, "more classes than lanes");
  CHECK(path({27, 3, 10, 27, {20, 20}}, 32) != ModelPath::narrow, "two hidden layers");
  CHECK(path({27, 3, 10, 27, {60000}}, 32) == ModelPath::none, "beyond shared memory");
  const size_t limit = fiber::shared_limit();
  fiber::set_shared_limit(99 << 10);
  CHECK(path(lecture, 32) != ModelPath::narrow, "99 KB are not enough for the narrow kernel");
  fiber::set_shared_limit(limit);
}

TEST_CASE(frozen_tensors_stay) {
  for (Optimizer optimizer : {Optimizer::sgd, Optimizer::adamw})
    for (int64_t N : {9, 40}) {
      const bool adamw = optimizer == Optimizer::adamw;
      if (quick() && adamw != (N == 40)) continue;
      Problem problem;
      problem.name = "frozen";
      problem.sizes = {11, 3, 4, 11, {20}};
      problem.recipe = everything(optimizer);
      if (N == 9) problem.recipe.max_grad_norm = INFINITY;
      problem.rate = adamw ? 0.01 : 0.3;
      problem.S = 2, problem.N = N;
      for (const auto& frozen : frozen_tensors(problem.sizes)) {
        problem.recipe.frozen = frozen;
        check(problem);
      }
    }
}
