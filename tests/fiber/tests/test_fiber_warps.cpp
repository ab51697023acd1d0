// Mistakes with the lanes of a warp, as pairs of a good and a bad kernel; see test_fiber.cpp.
#include "expect.h"

namespace {

constexpr unsigned kAll = 0xffffffffu;

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

double odd_lanes_of(int i) { return i % 2 ? i % 32 ^ 2 : i % 32; }
double half_of(int i) { return i % 32 < 16 ? 15 : i % 32; }
double neighbour_of(int i) { return i ^ 1; }

}  // namespace

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
