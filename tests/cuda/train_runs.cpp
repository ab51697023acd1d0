#include "train_runs.h"

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

}  // namespace mlpkern::testing
