// The shim's threads: each thing that a kernel may not do, as a pair of kernels that differ in
// nothing else. The good one must pass in every order of threads, the bad one must be refused.
#include <csignal>

#include "cuda/device/launch.cuh"
#include "orders.h"
#include "refusals.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

constexpr unsigned kAll = 0xffffffffu;

// Of the running thread in the output.
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

// --- Barriers ------------------------------------------------------------------------------------
template <bool bad>
__global__ void mirror(float* output) {
  __shared__ float shared[128];
  shared[threadIdx.x] = threadIdx.x;
  if (!bad) __syncthreads();
  output[place()] = shared[127 - threadIdx.x];
}

// Every round reads what the one before wrote: without the second barrier a thread writes what
// another one still has to read.
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

// Both branches have a barrier, and not the same one.
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

// --- Warps ---------------------------------------------------------------------------------------
template <bool bad>
__global__ void neighbours(float* output) {
  __shared__ float shared[64];
  shared[threadIdx.x] = threadIdx.x;
  if (!bad) __syncwarp();
  output[place()] = shared[threadIdx.x ^ 1];
}

template <bool bad>
__global__ void odd_lanes(float* output) {
  const int lane = threadIdx.x % 32;
  float value = lane;
  if (lane % 2 || bad) value = __shfl_xor_sync(0xaaaaaaaau, value, 2);
  output[place()] = value;
}

template <bool bad>
__global__ void shuffle_from_half(float* output) {
  const int lane = threadIdx.x % 32;
  float value = lane;
  if (lane < 16) value = __shfl_sync(0xffffu, value, bad ? 16 : 15);
  output[place()] = value;
}

template <bool bad>
__global__ void named_but_gone(float* output) {
  output[place()] = threadIdx.x;
  if (bad && threadIdx.x % 32 == 31) return;
  output[place()] += __shfl_xor_sync(kAll, 0.0f, 16);
}

// Lane 0 waits for the warp, the others for the block.
template <bool bad>
__global__ void wait_for_each_other(float* output) {
  if (!bad || threadIdx.x == 0) __syncwarp();
  __syncthreads();
  if (bad && threadIdx.x != 0) __syncwarp();
  output[place()] = threadIdx.x;
}

template <bool bad>
__global__ void two_exchanges(float* output) {
  const int lane = threadIdx.x % 32;
  float value = lane;
  if (bad && lane < 16)
    value = __shfl_xor_sync(kAll, value, 1);
  else
    value = __shfl_down_sync(kAll, value, 1);
  output[place()] = value;
}

template <bool bad>
__global__ void part_of_a_warp(float* output) {
  output[place()] = __shfl_xor_sync(bad ? kAll : 0xffffu, float(threadIdx.x), 1);
}

__global__ void shuffles(float* output) {
  const int lane = threadIdx.x % 32;
  double wide = lane + 0.5;
  wide = __shfl_up_sync(kAll, wide, 1);                  // lane 0 keeps its own
  const int in_group = __shfl_sync(kAll, lane, 9, 8);    // lane 1 of each 8
  const int down = __shfl_down_sync(kAll, lane, 3, 16);  // the last three keep their own
  const unsigned odd = __ballot_sync(kAll, lane & 1);
  const bool any = __any_sync(kAll, lane == 7), all = __all_sync(kAll, lane < 31);
  const float sum = wide + 100 * in_group + 10000 * down;
  output[place()] = odd == 0xaaaaaaaau && any && !all ? sum : -1;
}

double want_of_shuffles(int i) {
  const int lane = i % 32;
  const double up = lane == 0 ? 0.5 : lane - 0.5;
  const int down = lane % 16 < 13 ? lane + 3 : lane;
  return static_cast<float>(up + 100 * (lane / 8 * 8 + 1) + 10000 * down);
}

// --- Blocks and atomics --------------------------------------------------------------------------
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

double index_of(int i) { return i; }
double one(int) { return 1; }
double odd_lanes_of(int i) { return i % 2 ? i % 32 ^ 2 : i % 32; }
double half_of(int i) { return i % 32 < 16 ? 15 : i % 32; }
double neighbour_of(int i) { return i ^ 1; }

const char kDepends[] = "depends on the order of threads";

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

TEST_CASE(a_missing_warp_barrier_is_seen) {
  expect<neighbours<false>>(1, 64, neighbour_of);
  CHECK_REPORTS(kDepends, expect<neighbours<true>>(1, 64, neighbour_of));
}

TEST_CASE(lanes_exchange_values) { expect<shuffles>(2, 96, want_of_shuffles); }

TEST_CASE(a_lane_must_be_in_its_own_mask) {
  expect<odd_lanes<false>>(1, 64, odd_lanes_of);
  float output[64];
  CHECK_ABORTS("is not among them", cuda::launch<odd_lanes<true>>(1, 64, 0, nullptr, +output));
}

TEST_CASE(a_shuffle_reads_only_lanes_of_its_mask) {
  expect<shuffle_from_half<false>>(1, 64, half_of);
  float output[64];
  CHECK_ABORTS("reads lane 16, which is not among the lanes 0000ffff",
               cuda::launch<shuffle_from_half<true>>(1, 64, 0, nullptr, +output));
}

TEST_CASE(a_mask_names_only_lanes_that_come) {
  expect<named_but_gone<false>>(1, 64, index_of);
  expect<part_of_a_warp<false>>(1, 16, neighbour_of);
  for (fiber::Order order : fiber::kOrders) {
    fiber::set_order(order);
    float output[64];
    CHECK_ABORTS("has exited", cuda::launch<named_but_gone<true>>(1, 64, 0, nullptr, +output));
    CHECK_ABORTS("lane 16 has exited or never was",
                 cuda::launch<part_of_a_warp<true>>(1, 16, 0, nullptr, +output));
  }
}

TEST_CASE(a_deadlock_is_named) {
  expect<wait_for_each_other<false>>(1, 64, index_of);
  for (fiber::Order order : fiber::kOrders) {
    fiber::set_order(order);
    float output[64];
    CHECK_ABORTS("deadlock: thread 0 waits in __syncwarp",
                 cuda::launch<wait_for_each_other<true>>(1, 64, 0, nullptr, +output));
  }
}

TEST_CASE(a_divergent_warp_is_refused) {
  float output[32];
  CHECK_ACCEPTED(cuda::launch<two_exchanges<false>>(1, 32, 0, nullptr, +output));
  CHECK_ABORTS("divergent warp: __shfl_",
               cuda::launch<two_exchanges<true>>(1, 32, 0, nullptr, +output));
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
