// The fibers that stand for a block's threads: each mistake of a kernel as a pair of kernels that
// differ in nothing else. The good one must pass in every order of threads, the bad one must be
// refused.
#include "expect.h"

namespace {

template <bool bad>
__global__ void mirror(float* output) {
  __shared__ float shared[128];
  shared[threadIdx.x] = threadIdx.x;
  if (!bad) __syncthreads();
  output[place()] = shared[127 - threadIdx.x];
}

// Every round reads what the previous one wrote: without the second barrier a thread overwrites
// what another one has yet to read.
template <bool bad>
__global__ void rotate(float* output) {
  __shared__ float shared[128];
  float mine = threadIdx.x;
  for (int round = 0; round < 3; ++round) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    mine = shared[(threadIdx.x + 1) % 128];
    if (!bad) __syncthreads();
  }
  output[place()] = mine;
}

template <bool bad>
__global__ void exit_early(float* output) {
  if (bad && threadIdx.x >= 100) return;
  __syncthreads();
  output[place()] = threadIdx.x;
}

// Both branches have a barrier, but not the same one.
template <bool bad>
__global__ void diverge(float* output) {
  if (bad && threadIdx.x >= 64)
    __syncthreads();
  else
    __syncthreads();
  output[place()] = threadIdx.x;
}

__global__ void count_votes(float* output) {
  const int low = __syncthreads_count(threadIdx.x < 5);
  const int any = __syncthreads_or(threadIdx.x == 77), none = __syncthreads_or(threadIdx.x > 500);
  const int all = __syncthreads_and(threadIdx.x < 500), most = __syncthreads_and(threadIdx.x > 0);
  output[place()] = low + 10 * any + 100 * none + 1000 * all + 10000 * most;
}

// The bad one lets a block read what another block has written in the same launch.
template <bool bad>
__global__ void chain(float* output) {
  const int i = place();
  output[i] = i;
  if (bad && blockIdx.x > 0) output[i] = output[i - blockDim.x];
}

// The bad one hands out places in the order of arrival.
template <bool bad>
__global__ void tickets(float* output) {
  __shared__ unsigned next;
  if (threadIdx.x == 0) next = 0;
  __syncthreads();
  const unsigned ticket = atomicAdd(&next, 1u);
  __syncthreads();
  output[place()] = bad ? ticket : next;
}

__global__ void integer_atomics(float* output) {
  __shared__ int sum, largest, least, bits, swapped;
  if (threadIdx.x == 0) sum = 0, largest = -1000, least = 1000, bits = 0, swapped = -1;
  __syncthreads();
  const int i = threadIdx.x;
  atomicAdd(&sum, i), atomicMax(&largest, i), atomicMin(&least, -i), atomicOr(&bits, 1 << i % 4);
  atomicSub(&sum, 1), atomicCAS(&swapped, -1, 7);
  __syncthreads();
  const bool right = sum == 128 * 127 / 2 - 128 && largest == 127 && least == -127 && bits == 15;
  output[place()] = right && swapped == 7;
}

__global__ void coordinates_kernel(float* output) {
  const dim3 g = gridDim, b = blockDim;
  const unsigned block = (blockIdx.z * g.y + blockIdx.y) * g.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * b.y + threadIdx.y) * b.x + threadIdx.x;
  output[block * b.x * b.y * b.z + thread] = block * b.x * b.y * b.z + thread;
}

double one(int) { return 1; }

}  // namespace

TEST_CASE(a_missing_barrier_is_seen) {
  const auto mirrored = [](int i) { return 127.0 - i; };
  expect<mirror<false>>(1, 128, mirrored);
  CHECK_REPORTS(kDepends, expect<mirror<true>>(1, 128, mirrored));
  const auto rotated = [](int i) { return (i + 3.0) - (i + 3 > 127 ? 128 : 0); };
  expect<rotate<false>>(1, 128, rotated);
  CHECK_REPORTS(kDepends, expect<rotate<true>>(1, 128, rotated));
}

TEST_CASE(a_barrier_is_for_all_threads) { expect<exit_early<false>>(1, 128, index_of); }

TEST_CASE(a_thread_that_exits_before_a_barrier_is_refused) {
  for (fiber::Order order : fiber::kOrders) {
    fiber::set_order(order);
    float output[128];
    CHECK_ACCEPTED(cuda::launch<exit_early<false>>(1, 128, 0, nullptr, +output));
    CHECK_ABORTS("thread 100 has exited",
                 cuda::launch<exit_early<true>>(1, 128, 0, nullptr, +output));
  }
}

TEST_CASE(a_divergent_barrier_is_refused) {
  for (fiber::Order order : fiber::kOrders) {
    fiber::set_order(order);
    float output[128];
    CHECK_ACCEPTED(cuda::launch<diverge<false>>(1, 128, 0, nullptr, +output));
    CHECK_ABORTS("divergent barrier: thread 0 waits in __syncthreads at",
                 cuda::launch<diverge<true>>(1, 128, 0, nullptr, +output));
    CHECK_ABORTS("test_fiber.cpp:", cuda::launch<diverge<true>>(1, 128, 0, nullptr, +output));
    CHECK_ABORTS("diverge", cuda::launch<diverge<true>>(1, 128, 0, nullptr, +output));
  }
}

TEST_CASE(barriers_count_votes) {
  expect<count_votes>(2, 128, [](int) { return 1015.0; });
}

TEST_CASE(blocks_come_in_any_order) {
  expect<chain<false>>(4, 32, index_of);
  CHECK_REPORTS(kDepends, expect<chain<true>>(4, 32, [](int i) { return double(i % 32); }));
}

TEST_CASE(atomics_of_integers) {
  expect<integer_atomics>(2, 128, one);
  expect<tickets<false>>(1, 64, [](int) { return 64.0; });
  CHECK_REPORTS(kDepends, expect<tickets<true>>(1, 64, index_of));
}

TEST_CASE(threads_and_blocks_have_three_coordinates) {
  Values output(DType::f32, 2 * 3 * 4 * 5 * 6 * 7);
  const cuda::Blocks grid(2, 3, 4);
  const dim3 block(5, 6, 7);
  run_in_every_order(
      "coordinates", {&output.buffer},
      [&] {
        return cuda::launch<coordinates_kernel>(grid, block, 0, nullptr,
                                                static_cast<float*>(output.data()));
      },
      [&] {
        for (int i = 0; i < output.count; ++i)
          CHECK(output.get(i) == i, "output[%d] got %g", i, output.get(i));
      });
}

TEST_CASE(a_launch_that_no_device_takes_is_an_error) {
  float output[1];
  const auto launch = [&](cuda::Blocks grid, dim3 block, size_t bytes) {
    return cuda::launch<exit_early<false>>(grid, block, bytes, nullptr, +output);
  };
  CHECK(launch({1, 65536}, 1, 0) == cudaErrorInvalidConfiguration, "grid.y = 65536");
  CHECK(launch({1, 1, 65536}, 1, 0) == cudaErrorInvalidConfiguration, "grid.z = 65536");
  CHECK(launch(int64_t{1} << 31, 1, 0) == cudaErrorInvalidConfiguration, "grid.x = 2^31");
  CHECK(launch((int64_t{1} << 32) + 1, 1, 0) == cudaErrorInvalidConfiguration, "2^32 + 1");
  CHECK(launch(1, 1025, 0) == cudaErrorInvalidConfiguration, "1025 threads");
  CHECK(launch(1, 0, 0) == cudaErrorInvalidConfiguration, "no threads");
  CHECK(launch(1, 1, (227 << 10) + 1) == cudaErrorInvalidConfiguration, "too much shared memory");
  CHECK(launch(0, 1, 0) == cudaSuccess, "an empty grid");
}
