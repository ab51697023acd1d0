// csrc/cuda/device/launch.cuh and library.cu with a CUDA runtime whose calls fail, devices with
// little shared memory, and grids that no device accepts. The runtime is the mock of cuda_runtime.h
// beside this file; the launchers of the ops are stand-ins that launch one small kernel.
#include "cuda/device/bad_id.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/library.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;
using scripted::runtime;

namespace mlpkern::cuda {
namespace {

template <int>
void kernel(int64_t, double) {}

constexpr size_t kLarge = 60 << 10;  // more than a block has without opt-in

int launch_one(void* stream) { return launch<kernel<0>>(1, 32, kLarge, stream, 1, 2.0f); }

int workspace_device = -1;
size_t device_as_bytes() {
  int device = -1;
  if (cudaGetDevice(&device) != cudaSuccess) return cudaGetLastError(), 0;
  return workspace_device = device, static_cast<size_t>(multiprocessors());
}

}  // namespace

#define MLPKERN_STAND_IN(name, Args)                                 \
  int name(const Args&, void* stream) { return launch_one(stream); } \
  size_t name##_workspace(const Args&) { return device_as_bytes(); }
MLPKERN_CUDA_KERNELS(MLPKERN_STAND_IN)
ModelPath train_steps_path(const TrainSteps&) {
  return shared_limit<kernel<0>>() > 0 ? ModelPath::block : ModelPath::none;
}
ModelPath evaluate_path(const Evaluate&) { return ModelPath::none; }

MLPKERN_BAD_IDS(embedding_gather)
cudaError_t cross_entropy_take_bad_id(BadId* bad) { return embedding_gather_take_bad_id(bad); }

}  // namespace mlpkern::cuda

namespace {

const cuda::Library& library() { return *mlpkern_cuda_library(); }

// Every function of the library on a device whose answers are not cached, and the queries of
// launchers.
constexpr int kDevice = 100;
static_assert(kDevice >= cuda::kKnownDevices);

struct Entry {
  const char* name;
  void (*call)();
};
const Entry kEntries[] = {{"launcher", [] { library().linear_tanh_slope({}, kDevice, nullptr); }},
                          {"workspace", [] { library().linear_tanh_slope_workspace({}, kDevice); }},
                          {"path", [] { library().train_steps_path({}, kDevice); }},
                          {"status",
                           [] {
                             char reason[64], detail[64];
                             library().status(reason, detail, sizeof reason);
                           }},
                          {"take_bad_id",
                           [] {
                             cuda::bad_ids.claimed = 1;
                             cuda::BadId bad;
                             library().take_bad_id(kDevice, &bad);
                           }},
                          {"multiprocessors", [] {
                             runtime.current = kDevice;
                             cuda::multiprocessors();
                           }}};

void reset() { runtime = scripted::Runtime(); }

}  // namespace

TEST_CASE(a_call_that_fails_leaves_no_error_behind) {
  size_t failures = 0;
  for (const Entry& entry : kEntries) {
    reset();
    entry.call();
    CHECK(runtime.last == cudaSuccess, "%s fails by itself", entry.name);
    const auto calls = runtime.called;
    for (const std::string& call : calls) {
      reset();
      runtime.fails[call] = cudaErrorInvalidValue;
      entry.call();
      CHECK(runtime.last == cudaSuccess, "%s leaves the error of %s", entry.name, call.c_str());
      runtime.fails.clear();
      const int error = library().linear_tanh_slope({}, kDevice, nullptr);
      CHECK(error == cudaSuccess, "%s failed in %s, then a good launch says %d", call.c_str(),
            entry.name, error);
      ++failures;
    }
  }
  CHECK(failures >= 20, "only %zu calls were made to fail", failures);
  reset();
}

TEST_CASE(a_launch_that_fails_says_so_itself) {
  reset();
  for (const char* call : {"cudaSetDevice", "cudaFuncSetAttribute", "cudaLaunchKernel"}) {
    runtime.fails = {{call, cudaErrorNoDevice}};
    const int error = library().evaluate({}, kDevice, nullptr);
    CHECK(error == cudaErrorNoDevice, "%s: %d", call, error);
  }
  reset();
}

TEST_CASE(a_launch_does_not_report_an_older_error) {
  reset();
  runtime.last = cudaErrorInvalidValue;  // an error of an earlier call, not yet cleared
  const int error = library().evaluate({}, kDevice, nullptr);
  CHECK(error == cudaSuccess, "%d", error);
  CHECK(runtime.launches.size() == 1, "%zu launches", runtime.launches.size());
  reset();
}

TEST_CASE(work_is_planned_on_the_device_that_does_it) {
  reset();
  runtime.current = 3;
  const uintptr_t before = runtime.context;
  CHECK(library().train_steps_workspace({}, 5) == 132, "multiprocessors as bytes");
  CHECK(cuda::workspace_device == 5, "planned on device %d", cuda::workspace_device);
  CHECK(runtime.context == before, "another context is current afterwards");
  CHECK(library().train_steps_workspace({}, 999) == 0, "a device that is not there");
  reset();
}

// optin, multiprocessor, reserved: sm_90, sm_80, sm_86, and one whose limit excludes nothing.
TEST_CASE(no_launch_is_planned_that_the_driver_refuses) {
  const int cards[][3] = {{232448, 233472, 1024},
                          {166912, 167936, 1024},
                          {101376, 102400, 1024},
                          {233472, 233472, 1024}};
  for (const auto& card : cards)
    for (const bool counts : {false, true})
      for (const size_t own : {0, 5000}) {
        reset();
        runtime.current = kDevice;
        runtime.has[cudaDevAttrMaxSharedMemoryPerBlockOptin] = card[0];
        runtime.has[cudaDevAttrMaxSharedMemoryPerMultiprocessor] = card[1];
        runtime.has[cudaDevAttrReservedSharedMemoryPerBlock] = card[2];
        runtime.counts_reserved = counts, runtime.static_bytes = own;
        set_context(format("%d of %d bytes, %zu static, %d", card[0], card[1], own, counts));
        const size_t limit = cuda::shared_limit<cuda::kernel<1>>();
        CHECK(limit <= runtime.granted(), "%zu planned, %zu granted", limit, runtime.granted());
        CHECK(limit + (counts ? 1024 : 0) == runtime.granted(), "%zu", limit);
        for (const size_t bytes : {limit, limit + 1}) {
          const bool fits = bytes == limit;
          const cudaError_t error = cuda::launch<cuda::kernel<1>>(1, 32, bytes, nullptr, 1, 2.0);
          CHECK((error == cudaSuccess) == fits, "%zu bytes: %d", bytes, error);
          CHECK(runtime.launches.size() == 1, "%zu launches", runtime.launches.size());
        }
      }
  reset();
}

TEST_CASE(a_kernel_may_have_what_its_own_arrays_leave) {
  reset();
  runtime.current = kDevice;
  runtime.static_bytes = cuda::kStaticShared;
  for (const size_t bytes : {size_t{1}, cuda::kDefaultShared - cuda::kStaticShared,
                             cuda::kDefaultShared - 1, cuda::kDefaultShared}) {
    const cudaError_t error = cuda::launch<cuda::kernel<2>>(1, 32, bytes, nullptr, 1, 2.0);
    CHECK(error == cudaSuccess, "%zu bytes: %d", bytes, error);
  }
  reset();
}

TEST_CASE(answers_are_kept_for_each_device) {
  reset();
  for (const int device : {7, 8}) {
    runtime.current = device;
    runtime.has[cudaDevAttrMultiProcessorCount] = device;
    for (int i = 0; i < 3; ++i) {
      runtime.called.clear();
      CHECK(cuda::multiprocessors() == device, "of device %d", device);
      CHECK(cuda::shared_limit<cuda::kernel<3>>() == 227 << 10, "of device %d", device);
      CHECK(runtime.called.size() == (i == 0 ? 4 : 1), "%zu calls", runtime.called.size());
    }
  }
  reset();
}

TEST_CASE(a_grid_that_no_device_takes_is_refused_and_never_cut_off) {
  reset();
  const int64_t most = 0x7FFFFFFF;
  const auto launch = [](cuda::Blocks blocks) {
    runtime.launches.clear();
    return cuda::launch<cuda::kernel<4>>(blocks, 32, 0, nullptr, 1, 2.0);
  };
  CHECK(launch(most) == cudaSuccess, "2^31 - 1 blocks");
  CHECK(runtime.launches[0].grid.x == most, "%u", runtime.launches[0].grid.x);
  CHECK(launch({1, 65535, 65535}) == cudaSuccess, "65535 in y and z");
  for (const cuda::Blocks blocks :
       {cuda::Blocks(most + 1), cuda::Blocks((int64_t{1} << 32) + 1), cuda::Blocks(1, 65536),
        cuda::Blocks(1, 1, 65536), cuda::Blocks(-1)}) {
    CHECK(launch(blocks) == cudaErrorInvalidConfiguration, "%lld blocks",
          static_cast<long long>(blocks.x));
    CHECK(runtime.launches.empty(), "launched");
  }
  CHECK(launch(0) == cudaSuccess && runtime.launches.empty(), "no blocks");
  CHECK(runtime.last == cudaSuccess, "%d", runtime.last);
}

TEST_CASE(arguments_arrive_as_the_kernel_takes_them) {
  reset();
  static int64_t first;
  static double second;
  runtime.on_launch = [](void** arguments) {
    first = *static_cast<int64_t*>(arguments[0]), second = *static_cast<double*>(arguments[1]);
  };
  const int small = -7;
  CHECK(cuda::launch<cuda::kernel<5>>(1, 32, 0, nullptr, small, 1.5f) == cudaSuccess, "launch");
  CHECK(first == -7 && second == 1.5, "%lld, %g", static_cast<long long>(first), second);
  reset();
}
