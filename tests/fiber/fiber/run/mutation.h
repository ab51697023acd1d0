// Leaves out one barrier, wait or check of a kernel, for the mutation test
// (tests/cuda/mutation/mutate.py), which names it in the environment:
// MLPKERN_LEAVE_OUT="cuda/device/reduce.cuh:58" a barrier or wait by its line,
// MLPKERN_LEAVE_OUT="17" a check by its number in mutate.py. At the end the program
// prints how often it left that out, which tells a test that never executed the place from one that
// did not notice.
#pragma once

#include "fiber/run/site.h"

namespace mlpkern::fiber {

bool leaves_out(Site site);
bool leaves_out(int check);

}  // namespace mlpkern::fiber
