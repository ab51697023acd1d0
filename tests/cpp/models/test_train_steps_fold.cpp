// train_steps where it folds the first layer (csrc/cpu/mlp/training/fold_backward.h), against a
// plain loop: many rows a batch, few ids.
#include <cmath>
#include <vector>

#include "train_everywhere.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

const MLPSizes kLecture = {27, 3, 10, 27, {200}};

}  // namespace

TEST_CASE(every_optimizer_with_a_fold) {
  for (Problem problem : optimizers())
    for (double max_grad_norm : {0.0, 0.1}) {
      if (max_grad_norm > 0) problem.recipe.max_grad_norm = max_grad_norm;
      problem.recipe.label_smoothing = max_grad_norm;
      problem.N = 121;
      problem.sizes = {27, 3, 10, 27, {50, 20}};
      check_both_dtypes(problem);
    }
}

TEST_CASE(folded_batches_around_and_above_one_block) {
  for (int64_t N : {511, 512, 513, 1100})
    for (Problem problem : optimizers()) {
      problem.N = N;
      problem.S = 2;
      problem.sizes = {27, 3, 10, 27, {35}};
      problem.recipe.hidden_dropout = N == 513 ? 0.2 : 0;
      check(problem);
      problem.recipe.max_grad_norm = 0.1;
      check(problem);
    }
  Problem doubles;
  doubles.name = "blocks in float64";
  doubles.dtype = DType::f64;
  doubles.N = 1100, doubles.S = 2;
  check(doubles);
}

TEST_CASE(awkward_sizes_of_a_fold) {
  // One id, two: all rows in one sum. One position; one past a vector and past a chunk of the
  // depth; ids again and again in one row; columns in several panels; ids that few rows have.
  const struct {
    int64_t N;
    MLPSizes sizes;
  } cases[] = {{31, {1, 2, 20, 3, {17}}},     {160, {2, 1, 3, 2, {1}}},
               {97, {27, 1, 16, 27, {33}}},   {63, {5, 9, 7, 5, {15, 2}}},
               {33, {9, 2, 17, 4, {513}}},    {16, {3, 2, 300, 5, {16}}},
               {203, {100, 2, 40, 130, {24}}}};
  for (const auto& c : cases) {
    Problem problem;
    problem.name = "awkward fold";
    problem.N = c.N, problem.sizes = c.sizes;
    problem.S = 2, problem.rows = 250;
    check_both_dtypes(problem);
    problem.recipe.momentum = 0.9;
    problem.recipe.hidden_dropout = 0.25;
    check(problem);
  }
}

TEST_CASE(models_that_fold_beside_models_that_do_not) {
  Problem problem;  // model 0 alone has no input dropout
  problem.name = "mixed";
  problem.M = 3, problem.S = 2, problem.N = 130;
  problem.rate = 0.1;
  problem.sizes = {27, 3, 10, 27, {40}};
  problem.recipe.input_dropout = 0.3, problem.recipe.hidden_dropout = 0.4;
  check_both_dtypes(problem);
  Problem folded = problem;
  folded.recipe.input_dropout = 0;
  Trial mixed(problem), alone(folded);
  for (int64_t m = 0; m < problem.M; ++m)
    for (int64_t i = 0; i < problem.sizes.tensors(); ++i)
      for (int64_t j = 0; j < problem.sizes.count(i); ++j)
        alone.parameters.set(i, m, j, mixed.parameters.get(i, m, j));
  alone.parameters.save();
  for (int64_t r = 0; r < problem.rows; ++r) {
    for (int64_t t = 0; t < problem.sizes.T; ++t)
      alone.examples.set_input(r, t, mixed.examples.ids(r)[t]);
    alone.examples.set_target(r, mixed.examples.target(r));
  }
  for (int64_t i = 0; i < mixed.batches.count; ++i) alone.batches.set(i, mixed.batches.get(i));
  for_each_isa("mixed", [&] {
    mixed.restore(), alone.restore();
    mixed.run(), alone.run();
    CHECK(same(mixed.result(0), alone.result(0)), "a model depends on the dropout of another");
  });
}

TEST_CASE(a_row_that_is_not_in_use_may_be_anything) {
  for (int64_t N : {128, 600}) {
    Problem problem;
    problem.name = "unused row";
    problem.N = N, problem.S = 2;
    problem.sizes = kLecture;
    if (left_out(problem.multiply_adds())) continue;
    Trial trial(problem);
    const int64_t id = 13, D = problem.sizes.D;
    for (int64_t r = 0; r < problem.rows; ++r)
      for (int64_t t = 0; t < problem.sizes.T; ++t)
        if (trial.examples.ids(r)[t] == id) trial.examples.set_input(r, t, id + 1);
    for_each_isa(trial.label(), [&] {
      trial.restore();
      trial.run();
      std::vector<std::vector<double>> finite = trial.parameters.model(0);
      const double loss = trial.loss(0, 1);
      trial.restore();
      for (int64_t d = 0; d < D; ++d)
        trial.parameters.set(0, 0, id * D + d, d % 2 ? NAN : INFINITY);
      trial.run();
      CHECK(trial.loss(0, 1) == loss, "the loss is %g, not %g", trial.loss(0, 1), loss);
      const std::vector<std::vector<double>> trained = trial.parameters.model(0);
      finite[0].erase(finite[0].begin() + id * D, finite[0].begin() + (id + 1) * D);
      std::vector<double> others = trained[0];
      others.erase(others.begin() + id * D, others.begin() + (id + 1) * D);
      CHECK(same(others, finite[0]), "it changed the other rows");
      for (size_t i = 1; i < finite.size(); ++i)
        CHECK(same(trained[i], finite[i]), "it changed tensor %zu", i);
      for (int64_t d = 0; d < D; ++d)
        CHECK(!std::isfinite(trained[0][id * D + d]), "it is finite at %lld",
              static_cast<long long>(d));
    });
  }
}

TEST_CASE(chunks_and_threads_of_a_folded_run) {
  for (int64_t N : {100, 600})
    for (Problem problem : optimizers()) {
      problem.N = N, problem.S = 5;
      problem.M = N == 100 ? 2 : 1;
      problem.sizes = kLecture;
      problem.recipe.hidden_dropout = N == 100 ? 0.2 : 0;
      if (left_out(problem.multiply_adds())) continue;
      Trial trial(problem);
      for_each_isa(trial.label(), [&] {
        std::vector<std::vector<double>> whole;
        for (int threads : {1, 2, 3}) {
          set_threads(threads);
          trial.restore();
          trial.run();
          for (int64_t m = 0; m < problem.M; ++m) {
            if (threads == 1) whole.push_back(trial.result(m));
            CHECK(same(trial.result(m), whole[m]), "%d threads change model %lld", threads,
                  static_cast<long long>(m));
          }
          trial.restore();
          run_in_chunks(trial, {2, 1, 2});
          for (int64_t m = 0; m < problem.M; ++m)
            CHECK(same(trial.result(m), whole[m]), "chunks on %d threads change model %lld",
                  threads, static_cast<long long>(m));
        }
      });
    }
  set_threads(2);
}

TEST_CASE(frozen_tensors_of_a_fold) {
  for (Problem problem : optimizers()) {
    problem.sizes = {27, 3, 10, 27, {35}};
    problem.S = 2;
    for (int64_t N : {121, 600})
      for (const auto& frozen : frozen_tensors(problem.sizes)) {
        if (N == 600 && problem.recipe.optimizer != Optimizer::adamw) continue;
        problem.N = N;
        problem.recipe.frozen = frozen;
        check(problem);
        problem.recipe.max_grad_norm = 0.1;
        check(problem);
        problem.recipe.max_grad_norm = INFINITY;
      }
  }
}
