// For the tests of the threads: runs a kernel in every order of threads.
#pragma once

#include "cuda/device/launch.cuh"
#include "orders.h"
#include "refusals.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

// The index of the running thread in the output.
__device__ int place() { return blockIdx.x * blockDim.x + threadIdx.x; }

// Runs kernel(output) with `threads` threads in every order; output[i] must be want(i).
template <auto kernel>
void expect(unsigned blocks, unsigned threads, double (*want)(int), size_t shared_bytes = 0) {
  const int64_t count = int64_t{blocks} * threads;
  Values output(DType::f32, count);
  run_in_every_order(
      "kernel", {&output.buffer},
      [&] {
        return cuda::launch<kernel>(blocks, threads, shared_bytes, nullptr,
                                    static_cast<float*>(output.data()));
      },
      [&] {
        int i = 0;
        while (i < count && output.get(i) == want(i)) ++i;
        CHECK(i == count, "output[%d] got %g, want %g", i, output.get(i), want(i));
      });
}

double index_of(int i) { return i; }

const char kDepends[] = "depends on the order of threads";

}  // namespace
