// Leaves out one barrier, wait or check of a kernel, for the mutation test
// (tests/cuda/mutation/mutate.py), which names it in the environment:
// MLPKERN_LEAVE_OUT="cuda/device/reduce.cuh:58" a barrier or wait by its line,
// MLPKERN_LEAVE_OUT="17" a check by the number that mutate.py has given it. At the end of the
// program the number of times is printed, so that a test that never came there is told from one
// that did not notice.
#pragma once

#include "fiber/run/site.h"

namespace mlpkern::fiber {

bool leaves_out(Site site);
bool leaves_out(int check);

}  // namespace mlpkern::fiber
