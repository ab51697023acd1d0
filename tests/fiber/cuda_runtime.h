// Twin of CUDA's header of this name: lets a C++ compiler take the sources of csrc/cuda as they are
// and run their kernels on a CPU. See README.md in this folder.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static thread_local  // why, is said in fiber/run/shared_memory.h
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__

#include "fiber/builtins/arithmetic.h"
#include "fiber/builtins/intrinsics.h"
#include "fiber/builtins/runtime_api.h"
#include "fiber/builtins/vector_types.h"
#include "fiber/run/scheduler.h"
