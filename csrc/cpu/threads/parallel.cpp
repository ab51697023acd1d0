#include "cpu/threads/parallel.h"

#include <dlfcn.h>

#include <initializer_list>
#include <thread>

#include "kernels.h"

namespace mlpkern::cpu {
namespace {

using TorchNumThreads = int32_t (*)(uint32_t* count);
using OmpMaxThreads = int (*)();

// Who says how many threads there are, looked for at run time: torch_get_num_threads of an already
// loaded libtorch_cpu (a plain C symbol since torch 2.10), else OpenMP for programs without torch.
struct Bound {
  TorchNumThreads torch = nullptr;
  OmpMaxThreads openmp = nullptr;

  Bound() {
    for (const char* name : {"libtorch_cpu.so", "libtorch_cpu.dylib"})
      if (void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD); library && !torch)
        torch = reinterpret_cast<TorchNumThreads>(dlsym(library, "torch_get_num_threads"));
    if (torch) return;
    if (void* library = dlopen("libgomp.so.1", RTLD_LAZY))
      openmp = reinterpret_cast<OmpMaxThreads>(dlsym(library, "omp_get_max_threads"));
  }

  int threads() const {
    if (torch) {
      uint32_t count = 1;
      torch(&count);
      return static_cast<int>(count);
    }
    return openmp ? openmp() : static_cast<int>(std::thread::hardware_concurrency());
  }
};

const Bound& bound() {
  static const Bound found;
  return found;
}

thread_local int limit = 0;

// A loop is worth threads if it takes so many times as long as one of them needs to arrive.
constexpr double kWorth = 4;

}  // namespace

int max_threads() {
  const int threads = bound().threads();
  if (threads < 1) return 1;
  return limit > 0 && limit < threads ? limit : threads;
}

int limit_threads(int count) {
  const int before = limit;
  limit = count > 0 ? count : 0;
  return before;
}

const char* parallel_source() {
  return bound().torch ? "torch" : bound().openmp ? "openmp" : "system";
}

bool worth_threads(double multiply_adds) {
  if (in_region() || max_threads() < 2) return false;
  static const double multiply_adds_per_second = fma_peak(100e-6) / 2 / 2;
  const Latency latency = team_latency();
  return multiply_adds >
         kWorth * (team_is_awake() ? latency.awake : latency.asleep) * multiply_adds_per_second;
}

}  // namespace mlpkern::cpu
