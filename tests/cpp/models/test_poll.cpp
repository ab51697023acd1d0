// Launchers that poll whether to go on: "yes" changes no bit, and after "no" all models are at the
// same step.
#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/threads/pieces.h"
#include "evaluate_trial.h"
#include "train_everywhere.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

// Returns true until `end` is done; polled as often as possible.
struct Asker {
  int64_t end = INT64_MAX;
  std::vector<int64_t> done;

  cpu::Poll poll() {
    const auto go_on = [](void* context, int64_t count) {
      Asker& asker = *static_cast<Asker*>(context);
      asker.done.push_back(count);
      return count < asker.end;
    };
    return {go_on, this, 0};
  }
};

using Bits = std::vector<std::vector<double>>;

Bits results(const Trial& trial) {
  Bits all;
  for (int64_t m = 0; m < trial.p.M; ++m) all.push_back(trial.result(m));
  return all;
}

// The state of all models, without their losses.
Bits states(const Trial& trial) {
  Bits all = results(trial);
  for (std::vector<double>& one : all) one.erase(one.begin() + 1, one.begin() + 1 + trial.p.S);
  return all;
}

bool equal(const Bits& a, const Bits& b) {
  bool all = a.size() == b.size();
  for (size_t i = 0; all && i < a.size(); ++i) all = same(a[i], b[i]);
  return all;
}

void run_asking(Trial& trial, Asker& asker) {
  const cpu::Asking asking(asker.poll());
  launch_train_steps(trial.arguments(0, trial.p.S, trial.losses.data()));
}

void check_asking(const Problem& problem, int64_t stops_model_1_at = -1) {
  if (left_out(problem.multiply_adds())) return;
  Trial trial(problem);
  if (stops_model_1_at >= 0) trial.break_at(stops_model_1_at, false);
  for_each_isa(trial.label(), [&] {
    for (int threads : {1, 2, 3}) {
      set_threads(threads);
      trial.restore();
      trial.run();
      const Bits whole = results(trial);

      trial.restore();
      trial.losses.buffer.poison();
      Asker patient;
      run_asking(trial, patient);
      CHECK(equal(results(trial), whole), "questions change the bits");
      CHECK(static_cast<int64_t>(patient.done.size()) == problem.S - 1, "%zu questions in %lld",
            patient.done.size(), static_cast<long long>(problem.S));

      for (int64_t end = 1; end < problem.S; ++end) {
        trial.restore();
        trial.run_part(0, end);
        const Bits there = states(trial);
        trial.restore();
        trial.losses.buffer.poison();
        Asker asker;
        asker.end = end;
        run_asking(trial, asker);
        CHECK(asker.done.back() == end, "ended at step %lld",
              static_cast<long long>(asker.done.back()));
        CHECK(equal(states(trial), there), "not the state after step %lld",
              static_cast<long long>(end));
        trial.run_part(end, problem.S - end);
        CHECK(equal(results(trial), whole), "going on from step %lld changes the bits",
              static_cast<long long>(end));
      }
    }
  });
  set_threads(2);
}

}  // namespace

TEST_CASE(a_run_ends_where_it_is_told_to) {
  for (Problem problem : optimizers()) {
    problem.S = 5, problem.step = 3;
    problem.N = 9;
    for (int64_t M : {1, 2, 5}) {
      problem.M = M;
      problem.sizes = {27, 3, 10, 29, {20, 7}};
      check_asking(problem);
      problem.sizes = {500, 2, 17, 30, {19}};  // a table of which a step touches few rows
      check_asking(problem);
    }
  }
}

TEST_CASE(with_every_option) {
  for (Optimizer optimizer : {Optimizer::sgd, Optimizer::adamw}) {
    Problem problem;
    problem.name = "every option";
    problem.recipe = everything(optimizer);
    problem.M = 4, problem.S = 4, problem.N = 40;
    problem.sizes = {27, 3, 10, 27, {30}};
    check_asking(problem);
  }
}

// One model after the other, each by all threads.
TEST_CASE(models_whose_steps_are_shared_by_threads) {
  Problem problem;
  problem.name = "shared steps";
  problem.M = 2, problem.S = 3, problem.N = 600;
  problem.sizes = {27, 3, 10, 120, {90}};
  problem.recipe.momentum = 0.9;
  check_asking(problem);
}

TEST_CASE(a_model_that_stops_by_itself) {
  Problem problem;
  problem.name = "stops";
  problem.M = 3, problem.S = 6, problem.step = 2;
  problem.sizes = {27, 3, 10, 27, {20}};
  for (int64_t at : {0, 2, 5}) check_asking(problem, at);
}

TEST_CASE(a_model_that_stopped_before_stays_as_it_is) {
  Problem problem;
  problem.M = 3, problem.S = 4;
  problem.sizes = {27, 3, 10, 27, {20}};
  Trial trial(problem);
  for_each_isa("stopped before", [&] {
    for (int64_t at : {0, 2, 99}) {  // whatever the number
      trial.restore();
      const auto before = trial.parameters.model(1);
      trial.stopped.set(1, at);
      Asker asker;
      asker.end = 2;
      run_asking(trial, asker);
      const auto after = trial.parameters.model(1);
      for (size_t i = 0; i < before.size(); ++i)
        CHECK(same(before[i], after[i]), "tensor %zu changed", i);
      CHECK(std::isnan(trial.loss(1, 0)), "its loss is %g", trial.loss(1, 0));
      CHECK(trial.stopped.get(1) == at, "stopped is %lld",
            static_cast<long long>(trial.stopped.get(1)));
    }
  });
}

TEST_CASE(an_evaluation_in_pieces) {
  for (int64_t rows : {100, 256, 1100}) {
    EvaluateProblem problem;
    problem.M = 3, problem.rows = rows;
    EvaluateTrial trial(problem);
    const auto run = [&](const cpu::Poll& poll) {
      const cpu::Asking asking(poll);
      launch(cpu::evaluate, cpu::evaluate_workspace, trial.arguments());
    };
    for_each_isa("pieces", [&] {
      run({});
      std::vector<double> whole;
      for (int64_t m = 0; m < 3; ++m)
        whole.insert(whole.end(), {trial.loss.get(m), trial.accuracy.get(m)});
      Asker patient, hasty;
      run(patient.poll());
      for (int64_t m = 0; m < 3; ++m)
        CHECK(same({trial.loss.get(m), trial.accuracy.get(m)}, {whole[2 * m], whole[2 * m + 1]}),
              "questions change model %lld", static_cast<long long>(m));
      const int64_t blocks = 3 * ((rows + 255) / 256);
      CHECK(static_cast<int64_t>(patient.done.size()) == blocks - 1, "%zu questions",
            patient.done.size());
      hasty.end = 2;
      run(hasty.poll());
      CHECK(hasty.done.back() == 2, "ended after %lld blocks",
            static_cast<long long>(hasty.done.back()));
    });
  }
}
