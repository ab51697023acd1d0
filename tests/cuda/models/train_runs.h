// Trials of the GPU's train_steps.
#pragma once

#include "models/train_trial.h"

namespace mlpkern::testing {

// Compares with the plain loop, and every order of threads with the first.
void check(const Problem& problem);
// With IEEE float32 and with TF32.
void check_both(Problem problem);

// Every type of ids, targets and row numbers, and strides of all of them.
void check_types_of_ids(const MLPSizes& sizes);
// A run in chunks has the bits of one call.
void check_chunks(const MLPSizes& sizes);
// A model whose loss is not finite stays as it was before that step; the others go on.
void check_stops(const MLPSizes& sizes);

}  // namespace mlpkern::testing
