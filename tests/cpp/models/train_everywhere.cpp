#include "train_everywhere.h"

namespace mlpkern::testing {

int64_t launch_train_steps(const TrainSteps& args) {
  return launch(cpu::train_steps, cpu::train_steps_workspace, args);
}

void check(const Problem& problem) {
  if (left_out(problem.multiply_adds())) return;
  Trial trial(problem);
  trial.expect();
  run_everywhere(
      trial.label(), trial.outputs(),
      [&] {
        trial.restore();
        return trial.run();
      },
      [&] { trial.check(); });
}

void check_both_dtypes(Problem problem) {
  for (DType dtype : {DType::f32, DType::f64}) {
    problem.dtype = dtype;
    check(problem);
  }
}

}  // namespace mlpkern::testing
