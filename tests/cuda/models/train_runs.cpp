#include "train_runs.h"

#include <cmath>

#include "cuda/library.h"
#include "orders.h"

namespace mlpkern::testing {

int64_t launch_train_steps(const TrainSteps& args) {
  return launch(cuda::train_steps, cuda::train_steps_workspace, args);
}

void check(const Problem& problem) {
  Trial trial(problem);
  trial.expect();
  run_in_every_order(
      trial.label() + (problem.tf32 ? " tf32" : ""), trial.outputs(),
      [&] {
        trial.restore();
        return static_cast<int>(trial.run());
      },
      [&] { trial.check(); });
}

void check_both(Problem problem) {
  for (bool tf32 : {false, true}) {
    problem.tf32 = tf32;
    check(problem);
  }
}

void check_types_of_ids(const MLPSizes& sizes) {
  const IndexType types[] = {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64};
  for (int i = 0; i < 4; ++i) {
    if (quick() && i != 2) continue;
    Problem problem;
    problem.name = "ids";
    problem.sizes = sizes;
    problem.N = 7, problem.M = 2;
    problem.input_type = types[i], problem.target_type = types[(i + 1) % 4];
    problem.batch_type = types[(i + 2) % 4];
    problem.shared_batches = i % 2, problem.windows = i > 1;
    check(problem);
  }
}

void check_chunks(const MLPSizes& sizes) {
  for (int64_t N : {8, 40}) {
    if (quick() && N == 8) continue;
    Problem problem;
    problem.name = "chunks";
    problem.sizes = sizes;
    problem.recipe = everything(Optimizer::adamw);
    problem.rate = 0.01;
    problem.M = 2, problem.N = N, problem.S = 7;
    set_context("chunks, ");
    Trial trial(problem);
    trial.run();
    const auto whole = trial.result(1);
    for (const std::vector<int64_t>& lengths :
         {std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1}, {2, 5}, {6, 1}}) {
      trial.restore();
      run_in_chunks(trial, lengths);
      CHECK(same(trial.result(1), whole), "%zu chunks give other bits", lengths.size());
    }
  }
}

void check_stops(const MLPSizes& sizes) {
  for (bool infinite : {false, true})
    for (int64_t N : {6, 37})
      for (Optimizer optimizer : {Optimizer::sgd, Optimizer::adamw}) {
        if (quick() && (infinite != (N == 6) || infinite != (optimizer == Optimizer::sgd)))
          continue;
        Problem problem;
        problem.name = "stop";
        problem.sizes = sizes;
        problem.recipe.optimizer = optimizer;
        problem.M = 3, problem.N = N, problem.S = 5, problem.step = 100;
        const int64_t at = 2;
        set_context(infinite ? "stop at infinity, " : "stop at NaN, ");
        Trial trial(problem);
        trial.break_at(at, infinite);
        trial.run();
        for (int64_t m = 0; m < problem.M; ++m) {
          CHECK(trial.stopped.get(m) == (m == 1 ? problem.step + at : -1), "stopped[%d] is %lld",
                static_cast<int>(m), static_cast<long long>(trial.stopped.get(m)));
          for (int64_t s = 0; s < problem.S; ++s)
            CHECK(std::isfinite(trial.loss(m, s)) == (m != 1 || s < at), "loss[%d, %d] is %g",
                  static_cast<int>(m), static_cast<int>(s), trial.loss(m, s));
        }
        CHECK(infinite ? std::isinf(trial.loss(1, at)) : std::isnan(trial.loss(1, at)),
              "the loss that is not finite is %g", trial.loss(1, at));
        const auto stopped = trial.result(1);
        trial.restore();
        trial.run_part(0, at);
        const auto before = trial.parameters.model(1);
        trial.run_part(at, 1);
        trial.run_part(at + 1, problem.S - at - 1);
        CHECK(same(trial.result(1), stopped), "a stopped model went on in the next call");
        for (size_t i = 0; i < before.size(); ++i)
          CHECK(same(trial.parameters.model(1)[i], before[i]), "the bad step changed tensor %zu",
                i);
      }
}

}  // namespace mlpkern::testing
