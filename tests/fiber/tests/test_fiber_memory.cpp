// The shim's memory: reads of unwritten shared memory, accesses past its end, asynchronous copies,
// misaligned vectors; as pairs of a good and a bad kernel, see test_fiber.cpp.
#include <csignal>

#include "cuda/device/launch.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/device/vector.cuh"
#include "orders.h"
#include "refusals.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// --- Shared memory -------------------------------------------------------------------------------
// Only the block that has written shared memory may read it. A template, so that its variable is
// one that the linker may merge.
template <class T, bool bad>
__global__ void keep(T* output) {
  __shared__ T shared[32];
  if (!bad || blockIdx.x == 0) shared[threadIdx.x] = T(1);
  output[blockIdx.x * 32 + threadIdx.x] = shared[threadIdx.x];
}

template <bool bad>
__global__ void keep_dynamic(float* output) {
  float* shared = cuda::dynamic_shared<float>();
  if (!bad || blockIdx.x == 0) shared[threadIdx.x] = 1;
  output[blockIdx.x * 32 + threadIdx.x] = shared[threadIdx.x];
}

__global__ void reach(float* output, int at, bool writes) {
  float* shared = cuda::dynamic_shared<float>();
  if (writes)
    shared[at] = 1;
  else
    output[0] = shared[at];
}

thread_local int beside = 41;  // next to the shared arrays of this program

// --- Copies --------------------------------------------------------------------------------------
enum class Copy { good, no_wait, wait_for_too_few, no_barrier_before_the_next, never_waits };

// output[i] = the sum over the rounds of input[round][i + 1], through two buffers.
template <Copy kind>
__global__ void copy_ahead(const float* input, float* output) {
  constexpr int kRounds = 4;
  __shared__ float buffer[2][64];
  const int i = threadIdx.x;
  const auto start = [&](int round) {
    if (round < kRounds) cuda::cp_async<4>(&buffer[round % 2][i], input + 64 * round + i, 4);
    cuda::cp_async_commit();
  };
  float sum = 0;
  start(0);
  for (int round = 0; round < kRounds; ++round) {
    if (kind != Copy::no_barrier_before_the_next) __syncthreads();
    start(round + 1);
    if (kind == Copy::wait_for_too_few)
      cuda::cp_async_wait<2>();
    else if (kind != Copy::no_wait)
      cuda::cp_async_wait<1>();
    __syncthreads();
    sum += buffer[round % 2][(i + 1) % 64];
  }
  if (kind == Copy::never_waits) start(0);
  if (kind == Copy::no_wait || kind == Copy::wait_for_too_few) cuda::cp_async_wait<0>();
  output[i] = sum;
}

template <Copy kind>
void copy() {
  Values input(DType::f32, 4 * 64), output(DType::f32, 64);
  input.randomize(1);
  run_in_every_order(
      "copy", {&output.buffer},
      [&] {
        return cuda::launch<copy_ahead<kind>>(1, 64, 0, nullptr,
                                              static_cast<const float*>(input.data()),
                                              static_cast<float*>(output.data()));
      },
      [&] {
        for (int i = 0; i < 64; ++i) {
          float want = 0;
          for (int r = 0; r < 4; ++r) want += static_cast<float>(input.get(64 * r + (i + 1) % 64));
          CHECK(output.get(i) == want, "output[%d] got %g, want %g", i, output.get(i), want);
        }
      });
}

template <int bytes>
__global__ void copy_some(const float* from, float* output, int valid) {
  __shared__ __align__(16) float buffer[4];
  cuda::cp_async<bytes>(buffer, from, valid);
  cuda::cp_async_commit();
  cuda::cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) output[i] = buffer[i];
}

// --- Alignment -----------------------------------------------------------------------------------
__global__ void load_once(const float* input, float* output) {
  cuda::store_vector<4>(output, cuda::load_vector_once<4>(input));
}
__global__ void load_plainly(const float* input, float* output) {
  cuda::store_vector<4>(output, cuda::load_vector<4>(input));
}

}  // namespace

TEST_CASE(shared_memory_is_new_in_every_block) {
  const auto check = [&](auto kernel_good, auto kernel_bad) {
    Values output(DType::f32, 96);
    float* const to = static_cast<float*>(output.data());
    for (fiber::Order order : fiber::kOrders) {
      fiber::set_order(order);
      kernel_good(to);
      for (int i = 0; i < 96; ++i) CHECK(output.get(i) == 1, "output[%d] got %g", i, output.get(i));
      kernel_bad(to);
      for (int i = 0; i < 96; ++i)
        CHECK(i < 32 ? output.get(i) == 1 : std::isnan(output.get(i)), "output[%d] got %g", i,
              output.get(i));
    }
    fiber::set_order(fiber::Order::forward);
  };
  check([](float* to) { cuda::launch<keep<float, false>>(3, 32, 0, nullptr, to); },
        [](float* to) { cuda::launch<keep<float, true>>(3, 32, 0, nullptr, to); });
  check([](float* to) { cuda::launch<keep_dynamic<false>>(3, 32, 128, nullptr, to); },
        [](float* to) { cuda::launch<keep_dynamic<true>>(3, 32, 128, nullptr, to); });
  int64_t integers[64];
  cuda::launch<keep<int64_t, true>>(2, 32, 0, nullptr, +integers);
  CHECK(integers[0] == 1 && integers[63] == -1, "got %lld", static_cast<long long>(integers[63]));
  fiber::set_order(fiber::Order::reverse);
  cuda::launch<keep<int64_t, true>>(2, 32, 0, nullptr, +integers);
  CHECK(integers[63] == 0x7FFF7FFF7FFF7FFF, "got %lld", static_cast<long long>(integers[63]));
}

TEST_CASE(other_thread_local_variables_keep_their_values) {
  float output[32];
  ++beside;
  cuda::launch<keep<float, false>>(1, 32, 0, nullptr, +output);
  CHECK(beside == 42, "got %d", beside);
}

TEST_CASE(dynamic_shared_memory_ends_where_it_ends) {
  const char* const said = kSanitized ? "use-after-poison" : "wrote outside its 100 bytes";
  const auto go = [](int at, bool writes) {
    float output[1];
    cuda::launch<reach>(1, 1, 100, nullptr, +output, at, writes);
  };
  for (int at : {0, 24})
    for (bool writes : {false, true}) CHECK_ACCEPTED(go(at, writes));
  for (int at : {-1, 25, 60}) {
    const Ending ending = run_apart([&] { go(at, true); });
    CHECK(ending.said.find(said) != std::string::npos, "shared[%d]: %s", at, ending.said.c_str());
    CHECK(ending.said.find("reach") != std::string::npos, "shared[%d]: %s", at,
          ending.said.c_str());
    CHECK(ending.signal == SIGABRT || (kSanitized && ending.status), "shared[%d] passed", at);
    if (!kSanitized) continue;  // a read leaves no trace for the guards to show
    CHECK(run_apart([&] { go(at, false); }).said.find(said) != std::string::npos,
          "reading shared[%d] passed", at);
  }
}

TEST_CASE(a_copy_must_be_waited_for) {
  const char depends[] = "output[0] got", unfinished[] = "exited without waiting for its";
  copy<Copy::good>();
  CHECK_REPORTS(depends, copy<Copy::no_wait>());
  CHECK_REPORTS(depends, copy<Copy::wait_for_too_few>());
  CHECK_ABORTS(unfinished, copy<Copy::never_waits>());
}

TEST_CASE(a_copy_must_not_start_into_a_buffer_in_use) {
  CHECK_REPORTS("depends on the order of threads", copy<Copy::no_barrier_before_the_next>());
}

TEST_CASE(a_copy_fills_the_rest_with_zeros) {
  alignas(16) const float from[8] = {1, 2, 3, 4, 5};
  float output[4];
  cuda::launch<copy_some<16>>(1, 1, 0, nullptr, +from, +output, 8);
  CHECK(output[0] == 1 && output[1] == 2 && output[2] == 0 && output[3] == 0, "16 bytes, 8 valid");
  cuda::launch<copy_some<8>>(1, 1, 0, nullptr, +from, +output, 8);
  CHECK(output[0] == 1 && output[1] == 2 && std::isnan(output[2]), "8 bytes, 8 valid");
  cuda::launch<copy_some<16>>(1, 1, 0, nullptr, +from, +output, 0);
  CHECK(output[0] == 0 && output[3] == 0, "16 bytes, none valid");
  const auto go = [&](int offset, int valid) {
    cuda::launch<copy_some<16>>(1, 1, 0, nullptr, from + offset, +output, valid);
  };
  CHECK_ACCEPTED(go(4, 16));
  CHECK_ABORTS("not both multiples of its size", go(2, 8));
  CHECK_ABORTS("17 of them valid", go(0, 17));
}

TEST_CASE(a_vector_must_be_aligned) {
  alignas(16) float input[8] = {0, 1, 2, 3, 4, 5, 6, 7}, output[8];
  const auto once = [&](int at) { cuda::launch<load_once>(1, 1, 0, nullptr, input + at, +output); };
  CHECK_ACCEPTED(once(4));
  CHECK_ABORTS("access to 16 bytes at", once(1));
  if (!kSanitized) return;  // a plain load is UBSan's to check
  const auto plainly = [&](int at) {
    cuda::launch<load_plainly>(1, 1, 0, nullptr, input + at, +output);
  };
  CHECK_ACCEPTED(plainly(4));
  const Ending ending = run_apart([&] { plainly(1); });
  CHECK(ending.said.find("misaligned address") != std::string::npos, "%s", ending.said.c_str());
}
