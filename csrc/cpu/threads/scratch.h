// Sizes and scratch for the plans of the kernels.
#pragma once

#include "cpu/threads/parallel.h"
#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Below this (6 us on one AVX-512 core) a plan does not cut its work into pieces for threads.
constexpr int64_t kSerialMultiplyAdds = 1 << 19;

MLPKERN_INLINE int64_t acc_size(DType dtype) { return dtype == DType::f64 ? 8 : 4; }
MLPKERN_INLINE int64_t lanes_of(DType dtype) { return kVectorBytes / acc_size(dtype); }
MLPKERN_INLINE int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x < low ? low : x > high ? high : x;
}

// row_step_for of vector/gemm.h for the accumulation type of dtype.
MLPKERN_INLINE int64_t row_step_for(DType dtype, int64_t columns) {
  return (ceil_div(columns, lanes_of(dtype)) | 1) * lanes_of(dtype);
}

// The number of workers of parallel_for_dynamic that may need scratch.
MLPKERN_INLINE int64_t workers(int64_t tasks) { return clamp(tasks, 0, kMaxWorkers); }

// Hands out scratch in order; every part begins on a cache line.
template <class A>
struct Scratch {
  char* next;
  A* take(int64_t elements) {
    A* part = reinterpret_cast<A*>(next);
    next += round_up(elements * sizeof(A), 64);
    return part;
  }
};

// body(i) or body(i, worker) for i in [0, count), by several threads where the whole is worth it.
template <class Body>
MLPKERN_INLINE void parallel_for_work(int64_t count, int64_t multiply_adds, const Body& body) {
  const auto run = [&](int64_t i, int64_t worker) {
    if constexpr (std::is_invocable_v<Body, int64_t, int64_t>)
      body(i, worker);
    else
      body(i);
  };
  if (count > 1 && worth_threads(static_cast<double>(multiply_adds)))
    parallel_for_dynamic(count, run);
  else
    for (int64_t i = 0; i < count; ++i) run(i, 0);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
