// evaluate of a GPU against a plain loop: mean loss and accuracy of several models over any number
// of rows.
#include <cmath>
#include <vector>

#include "cuda/library.h"
#include "fiber/run/grid.h"
#include "models/evaluate_trial.h"
#include "orders.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

int run(EvaluateTrial& trial) {
  return launch(cuda::evaluate, cuda::evaluate_workspace, trial.arguments());
}

void check(const EvaluateProblem& problem) {
  EvaluateTrial trial(problem);
  trial.expect();
  run_in_every_order(
      trial.label(), trial.outputs(), [&] { return run(trial); }, [&] { trial.check(); });
}

}  // namespace

// A block of rows is 32, a piece 1024.
TEST_CASE(any_number_of_rows) {
  for (int64_t rows : {1, 31, 32, 33, 1024, 1025, 3000})
    for (bool tf32 : {false, true}) {
      if (quick() && (tf32 || (rows != 33 && rows != 1025))) continue;
      EvaluateProblem problem;
      problem.rows = rows, problem.tf32 = tf32;
      problem.M = rows == 33 ? 3 : 1;
      problem.sizes = rows > 1000 ? MLPSizes{5, 2, 3, 5, {4}} : MLPSizes{27, 3, 10, 27, {50}};
      check(problem);
    }
}

TEST_CASE(any_sizes) {
  const std::vector<MLPSizes> all = {{1, 1, 1, 1, {1}},      {2, 1, 1, 2, {1}},
                                     {27, 3, 10, 27, {200}}, {27, 9, 1, 5, {15, 2}},
                                     {7, 3, 17, 70, {31}},   {40, 19, 3, 131, {16}},
                                     {2, 1, 300, 1, {3}},    {9, 2, 3, 4, {3, 1, 2, 5, 20, 33}}};
  for (const MLPSizes& sizes : all)
    for (bool tf32 : {false, true}) {
      if (quick() && (tf32 || (sizes.hidden.size() < 6 && sizes.C != 70 && sizes.T != 19)))
        continue;
      EvaluateProblem problem;
      problem.sizes = sizes, problem.tf32 = tf32;
      problem.M = 2, problem.rows = 45;
      check(problem);
    }
}

TEST_CASE(more_models_than_multiprocessors) {
  EvaluateProblem problem;
  problem.sizes = {5, 2, 3, 5, {4, 3}};
  problem.M = quick() ? 8 : 140, problem.rows = 5;
  check(problem);
}

TEST_CASE(types_and_strides_of_ids) {
  const IndexType types[] = {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64};
  for (int i = 0; i < 4; ++i) {
    if (quick() && i > 0) continue;
    EvaluateProblem problem;
    problem.sizes = {200, 4, 3, 25, {12}};
    problem.input_type = types[i], problem.target_type = types[(i + 1) % 4];
    problem.windows = i % 2;
    check(problem);
  }
}

TEST_CASE(the_first_of_equal_logits_is_the_prediction) {
  EvaluateProblem problem;
  problem.rows = 100, problem.M = 2;
  problem.sizes.C = 60;
  EvaluateTrial trial(problem);
  const int64_t weight = problem.sizes.tensors() - 2, bias = weight + 1;
  for (int64_t m : {0, 1}) {  // logits: model 0 all 0; model 1 has 2 at classes 7 and 39
    for (int64_t i = 0; i < problem.sizes.count(weight); ++i) trial.parameters.set(weight, m, i, 0);
    for (int64_t c = 0; c < 60; ++c)
      trial.parameters.set(bias, m, c, m == 1 && (c == 7 || c == 39) ? 2 : 0);
  }
  double share[2] = {};
  for (int64_t row = 0; row < 100; ++row) {
    trial.examples.set_target(row, row % 3 == 0 ? 0 : row % 3 == 1 ? 7 : 39);
    share[0] += (row % 3 == 0) / 100.0;
    share[1] += (row % 3 == 1) / 100.0;
  }
  run_in_every_order(
      "ties", trial.outputs(), [&] { return run(trial); },
      [&] {
        for (int64_t m : {0, 1})
          CHECK(std::fabs(trial.accuracy.get(m) - share[m]) < 1e-12, "accuracy %g, want %g",
                trial.accuracy.get(m), share[m]);
      });
}

TEST_CASE(a_model_of_nan_spoils_no_other) {
  EvaluateProblem problem;
  problem.M = 3, problem.rows = 40;
  EvaluateTrial trial(problem);
  run(trial);
  const double first = trial.loss.get(0), last = trial.loss.get(2);
  for (int64_t id = 0; id < problem.sizes.V; ++id)
    trial.parameters.set(0, 1, id * problem.sizes.D, NAN);
  run(trial);
  CHECK(std::isnan(trial.loss.get(1)), "loss %g", trial.loss.get(1));
  CHECK(trial.accuracy.get(1) == 0, "accuracy %g", trial.accuracy.get(1));
  CHECK(trial.loss.get(0) == first && trial.loss.get(2) == last, "another loss changed");
}

TEST_CASE(no_rows) {
  EvaluateProblem problem;
  problem.rows = 0, problem.M = 2;
  EvaluateTrial trial(problem);
  CHECK(run(trial) == 0, "an error from nothing");
  for (int64_t m : {0, 1})
    CHECK(std::isnan(trial.loss.get(m)) && std::isnan(trial.accuracy.get(m)), "got %g and %g",
          trial.loss.get(m), trial.accuracy.get(m));
}

TEST_CASE(models_that_shared_memory_holds) {
  const auto path = [](const MLPSizes& sizes, DType dtype = DType::f32) {
    EvaluateProblem problem;
    problem.sizes = sizes, problem.dtype = dtype;
    EvaluateTrial trial(problem);
    return cuda::evaluate_path(trial.arguments());
  };
  const MLPSizes lecture = {27, 3, 10, 27, {200}};
  CHECK(path(lecture) == ModelPath::block, "the model of the lecture");
  CHECK(path(lecture, DType::f64) == ModelPath::none, "float64 has no kernel");
  CHECK(path({27, 3, 10, 27, {2000}}) == ModelPath::none, "beyond shared memory");
  CHECK(path({27, 3, 10, 27, {2, 2, 2, 2, 2, 2, 2, 2}}) == ModelPath::block, "eight layers");
  CHECK(path({27, 3, 10, 27, {2, 2, 2, 2, 2, 2, 2, 2, 2}}) == ModelPath::none, "nine layers");
  const size_t limit = fiber::shared_limit();
  fiber::set_shared_limit(99 << 10);
  CHECK(path(lecture) == ModelPath::block, "99 KB are enough for the lecture");
  CHECK(path({27, 3, 10, 27, {250}}) == ModelPath::none, "and not for more");
  fiber::set_shared_limit(limit);
}
