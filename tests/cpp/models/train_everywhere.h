// Trials of train_steps on a CPU.
#pragma once

#include "train_trial.h"

namespace mlpkern::testing {

// Compares with the plain loop, on every instruction set and for several numbers of threads.
void check(const Problem& problem);
void check_both_dtypes(Problem problem);

}  // namespace mlpkern::testing
