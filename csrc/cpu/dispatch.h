// The instruction set that the launchers of kernels.h run on, and what it says of itself.
#pragma once

#include "kernels.h"

namespace mlpkern::cpu {

// Instruction set in use: "avx512", "avx2" or "baseline", or on ARM "neon"; the best of this
// library that runs here, or the one that the environment variable MLPKERN_ISA names. "none" where
// none runs here: every launcher then throws std::runtime_error. isa_error() is null, or the reason
// why there is none, or why MLPKERN_ISA cannot be used.
const char* isa();
const char* isa_error();

// The instruction sets that this library has and this machine runs, separated by commas.
const char* isas_available();

// How train_steps would use threads: `threads` for each step, `models` at the same time. Only the
// sizes, the dtype and input_dropout are read.
struct Sharing {
  int64_t threads, models;
};
Sharing train_steps_sharing(const TrainSteps& args);

// Flops per second of one core in fused multiply-adds of float32, as the instruction set in use
// does them: the best seen within `seconds`.
double fma_peak(double seconds);

// For tests: use the named instruction set from now on. False if it cannot run here.
bool set_isa(const char* name);

}  // namespace mlpkern::cpu
