// The shim itself: what tests/fiber must refuse, and what it must compute.
#include <vector>

#include "cuda/launch.cuh"
#include "orders.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

__global__ void reverse_kernel(const float* input, float* output) {
  __shared__ float shared[64];
  shared[threadIdx.x] = input[threadIdx.x];
  __syncthreads();
  output[threadIdx.x] = shared[63 - threadIdx.x];
}

}  // namespace

TEST_CASE(threads_see_each_other_after_a_barrier) {
  Values input(DType::f32, 64), output(DType::f32, 64);
  input.randomize(1);
  run_in_every_order(
      "reverse", {&output.buffer},
      [&] {
        return cuda::launch<reverse_kernel>(1, 64, 0, nullptr,
                                            static_cast<const float*>(input.data()),
                                            static_cast<float*>(output.data()));
      },
      [&] {
        for (int i = 0; i < 64; ++i)
          CHECK(output.get(i) == input.get(63 - i), "output[%d] got %g", i, output.get(i));
      });
}
