// Trials of train_steps on a GPU.
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
// A model whose loss is not finite keeps its state before that step; the others continue.
void check_stops(const MLPSizes& sizes);

}  // namespace mlpkern::testing
