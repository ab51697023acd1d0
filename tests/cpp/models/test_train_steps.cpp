// train_steps against a plain loop: optimizers, options, sizes around the tiles and blocks, id
// types and strides; chunks, stopped models.
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "train_everywhere.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

// With V > 2 N T: a table of which a step touches few rows.
const MLPSizes kSparse = {500, 2, 17, 30, {19}};

void check_stop(const Problem& problem, bool infinite) {
  if (left_out(problem.multiply_adds())) return;
  const int64_t at = problem.S / 2;
  for_each_isa(problem.name, [&] {
    for (int threads : {1, 3}) {
      set_threads(threads);
      Trial trial(problem);
      trial.break_at(at, infinite);
      trial.run();
      std::vector<std::vector<double>> whole;
      for (int64_t m = 0; m < problem.M; ++m) whole.push_back(trial.result(m));
      for (int64_t m = 0; m < problem.M; ++m)
        CHECK(trial.stopped.get(m) == (m == 1 ? problem.step + at : -1), "stopped[%lld] is %lld",
              static_cast<long long>(m), static_cast<long long>(trial.stopped.get(m)));
      for (int64_t m = 0; m < problem.M; ++m)
        for (int64_t s = 0; s < problem.S; ++s)
          CHECK(std::isfinite(trial.loss(m, s)) == (m != 1 || s < at), "loss[%lld, %lld] is %g",
                static_cast<long long>(m), static_cast<long long>(s), trial.loss(m, s));
      CHECK(infinite ? std::isinf(trial.loss(1, at)) : std::isnan(trial.loss(1, at)),
            "the loss that is not finite is %g", trial.loss(1, at));

      // The parameters stay those before the bad step, also in later calls.
      trial.restore();
      trial.run_part(0, at);
      const std::vector<std::vector<double>> before = trial.parameters.model(1);
      CHECK(trial.stopped.get(1) == -1, "stopped before the bad step");
      trial.run_part(at, problem.S - at - 1);
      trial.run_part(problem.S - 1, 1);
      for (size_t i = 0; i < before.size(); ++i)
        CHECK(same(trial.parameters.model(1)[i], before[i]), "the bad step changed tensor %zu", i);
      for (int64_t m = 0; m < problem.M; ++m)
        CHECK(same(trial.result(m), whole[m]), "chunks change model %lld",
              static_cast<long long>(m));

      // The other models are not affected.
      trial.batches.set(trial.batch_model_stride + at * trial.batch_step_stride, 0);
      trial.restore();
      trial.run();
      CHECK(trial.stopped.get(1) == -1, "stopped without a reason");
      for (int64_t m = 0; m < problem.M; ++m)
        CHECK(m == 1 || same(trial.result(m), whole[m]), "model %lld depends on a stopped one",
              static_cast<long long>(m));
    }
  });
  set_threads(2);
}

}  // namespace

TEST_CASE(every_optimizer_of_the_lecture_model) {
  for (Problem problem : optimizers()) check_both_dtypes(problem);
}

TEST_CASE(a_large_table_with_few_rows_in_use) {
  for (Problem problem : optimizers()) {
    problem.sizes = kSparse;
    problem.N = 5;
    check_both_dtypes(problem);
    problem.recipe.max_grad_norm = 0.5;
    check_both_dtypes(problem);
  }
}

TEST_CASE(several_models_side_by_side) {
  for (Problem problem : optimizers())
    for (int64_t M : {3, 9}) {
      problem.M = M;
      problem.S = 2;
      problem.N = 7;
      problem.sizes = {27, 2, 5, 30, {21, 6}};
      check_both_dtypes(problem);
      problem.shared_batches = true;
      problem.sizes = kSparse;
      check(problem);
    }
}

TEST_CASE(awkward_sizes) {
  // One of everything; two ids; one column and one past a vector; units past a chunk of the depth;
  // classes in several panels; deep and narrow layers.
  const MLPSizes sizes[] = {{1, 1, 1, 1, {1}},      {2, 1, 1, 2, {1}},
                            {27, 1, 17, 27, {33}},  {27, 9, 1, 5, {15, 2}},
                            {27, 3, 17, 28, {513}}, {40, 3, 33, 131, {16}},
                            {2, 1, 300, 1, {3}},    {9, 2, 3, 4, {3, 1, 2, 5}}};
  for (const MLPSizes& s : sizes)
    for (int64_t N : {1, 2, 31, 33}) {
      Problem problem;
      problem.name = "awkward";
      problem.sizes = s;
      problem.S = 2;
      problem.N = N;
      check_both_dtypes(problem);
      problem.recipe.momentum = 0.9;
      problem.recipe.hidden_dropout = problem.recipe.input_dropout = 0.25;
      check(problem);
    }
}

TEST_CASE(batches_around_and_above_one_block) {
  for (int64_t N : {512, 513, 1100})
    for (Problem problem : optimizers()) {
      problem.N = N;
      problem.S = 2;
      problem.sizes = {27, 3, 10, 27, {9, 24}};
      problem.recipe.hidden_dropout = N == 513 ? 0.2 : 0;
      problem.recipe.input_dropout = N == 1100 ? 0.1 : 0;
      check(problem);
    }
  Problem sparse;
  sparse.name = "sparse blocks";
  sparse.N = 600, sparse.S = 2, sparse.rows = 2000;
  sparse.sizes = {3000, 2, 5, 11, {40}};
  check_both_dtypes(sparse);
  sparse.M = 3;
  sparse.recipe.max_grad_norm = 0.01;
  check_both_dtypes(sparse);
}

TEST_CASE(weights_beyond_the_caches) {
  struct {
    const char* name;
    MLPSizes sizes;
    int64_t N;
  } const cases[] = {
      {"read tile by tile", {27, 2, 5, 270, {520}}, 300},    // of enough rows for a copy
      {"in slabs", {27, 3, 10, 110, {1100}}, 260},           // the forward sums of many rows
      {"a row past a panel", {27, 3, 10, 110, {1100}}, 33},  // which threads may share
      {"walked by rows", {27, 2, 5, 4100, {1030}}, 9},       // and the backward sums in slabs
  };
  for (const auto& c : cases) {
    Problem problem;
    problem.name = c.name;
    problem.sizes = c.sizes;
    problem.N = c.N;
    problem.S = c.N > 100 ? 2 : 1;
    check(problem);
    problem.S = 1;
    problem.recipe.max_grad_norm = 0.1;
    if (c.N > 100) check(problem);
  }
}

TEST_CASE(clipping_and_label_smoothing) {
  for (Problem problem : optimizers())
    for (double max_grad_norm : {0.1, 1e6}) {  // one that clips and one that does not
      problem.recipe.max_grad_norm = max_grad_norm;
      problem.recipe.label_smoothing = 0.15;
      problem.M = 2;
      problem.sizes = {27, 3, 10, 29, {50, 20}};
      check_both_dtypes(problem);
    }
}

TEST_CASE(dropout) {
  for (double p : {0.1, 0.5, 0.9})
    for (int which : {1, 2, 3})
      for (int64_t M : {1, 3}) {
        Problem problem;
        problem.name = "dropout";
        problem.rate = 0.1;  // the factors 1 / (1 - p) make the gradients large
        problem.M = M;
        problem.sizes = {27, 3, 7, 27, {30, 13}};
        problem.recipe.input_dropout = which & 1 ? p : 0;
        problem.recipe.hidden_dropout = which & 2 ? p : 0;
        problem.recipe.seed = M == 1 ? -3 : 0x123456789ABCDEF;
        problem.recipe.stream = 70000;
        problem.step = (int64_t{1} << 32) - 2;  // the counter wraps
        check_both_dtypes(problem);
      }
}

TEST_CASE(every_index_type_and_stride) {
  for (IndexType type : {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64})
    for (int which = 0; which < 3; ++which) {
      Problem problem;
      problem.name = "index types";
      problem.M = 2, problem.S = 2, problem.N = 13, problem.rows = 200;
      problem.sizes = {255, 4, 3, 255, {12}};
      problem.windows = which == 2;
      (which == 0   ? problem.input_type
       : which == 1 ? problem.target_type
                    : problem.batch_type) = type;
      check(problem);
    }
}

TEST_CASE(chunks_are_one_run) {
  std::vector<Problem> problems = optimizers();
  for (Problem problem : optimizers()) {
    problem.sizes = kSparse;
    problem.N = 6;
    problem.recipe.hidden_dropout = 0.3, problem.recipe.input_dropout = 0.2;
    problems.push_back(problem);
  }
  for (Problem& problem : problems) {
    problem.M = 2, problem.S = 7, problem.step = 5;
    problem.sizes.hidden = {40};
    if (left_out(problem.multiply_adds())) continue;
    Trial trial(problem);
    for_each_isa(trial.label(), [&] {
      for (int threads : {1, 3}) {
        set_threads(threads);
        trial.restore();
        trial.run();
        const std::vector<double> whole[] = {trial.result(0), trial.result(1)};
        for (const auto& lengths : {std::vector<int64_t>{3, 1, 0, 3}, {1, 6}}) {
          trial.restore();
          run_in_chunks(trial, lengths);
          for (int64_t m : {0, 1})
            CHECK(same(trial.result(m), whole[m]), "chunks change model %lld",
                  static_cast<long long>(m));
        }
      }
    });
  }
  set_threads(2);
}

TEST_CASE(a_loss_that_is_not_finite_stops_its_model_alone) {
  for (Problem problem : optimizers())
    for (bool sparse : {false, true}) {
      problem.M = 3, problem.S = 6, problem.step = 11;
      problem.N = sparse ? 4 : 40;
      problem.sizes = sparse ? kSparse : MLPSizes{27, 3, 10, 27, {20}};
      check_stop(problem, false);
      // The other rules multiply the infinite bias by the weight decay, even if that is 0: NaN too
      // early.
      if (problem.recipe.weight_decay == 0) check_stop(problem, true);
    }
}

TEST_CASE(frozen_tensors_stay) {
  for (Problem problem : optimizers()) {
    problem.S = 2;
    const MLPSizes all[] = {{27, 2, 5, 30, {21, 6}}, kSparse};
    for (const MLPSizes& sizes : all)
      for (const auto& frozen : frozen_tensors(sizes)) {
        problem.sizes = sizes;
        problem.recipe.frozen = frozen;
        problem.N = 7, problem.M = 3;
        check(problem);
        problem.recipe.max_grad_norm = 0.1;
        check(problem);
        problem.recipe.max_grad_norm = INFINITY;
      }
  }
  Problem problem;
  problem.name = "frozen, blocks and dropout";
  problem.recipe = everything(Optimizer::adamw);
  problem.rate = 0.01;
  problem.S = 2, problem.N = 520;
  problem.sizes = {27, 3, 10, 27, {9, 24}};
  for (const auto& frozen : frozen_tensors(problem.sizes)) {
    problem.recipe.frozen = frozen;
    check_both_dtypes(problem);
  }
  problem.name = "frozen, walked by rows";
  problem.recipe = Recipe();
  problem.rate = 0.5;
  problem.S = 1, problem.N = 9;
  problem.sizes = {27, 2, 5, 4100, {1030}};
  for (int64_t tensor : {3, 4}) {
    problem.recipe.frozen = {tensor};
    check(problem);
  }
}
