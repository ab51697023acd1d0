// Twin of CUDA's header of this name: with it a C++ compiler compiles the sources of csrc/cuda
// unchanged, for a CPU. See README.md in this folder.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static thread_local  // fiber/run/shared_memory.h says why
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
