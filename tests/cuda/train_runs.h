// Trials of the GPU's train_steps.
#pragma once

#include "train_trial.h"

namespace mlpkern::testing {

// Compares with the plain loop, and every order of threads with the first.
void check(const Problem& problem);
// With IEEE float32 and with TF32.
void check_both(Problem problem);

}  // namespace mlpkern::testing
