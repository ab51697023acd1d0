#include "cpu/threads/parallel.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <initializer_list>
#include <thread>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/threads/flush_denormals.h"
#include "cpu/threads/stragglers.h"

namespace mlpkern::cpu {
namespace {

using RangeBody = void (*)(int64_t begin, int64_t end, void* context);
using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, RangeBody body,
                                     void* context);
using TorchNumThreads = int32_t (*)(uint32_t* count);
using OmpMaxThreads = int (*)();

// What other libraries offer, looked for at run time: plain C symbols of an already loaded
// libtorch_cpu (since torch 2.10), else OpenMP for programs without torch.
struct Others {
  TorchParallelFor torch_loop = nullptr;
  TorchNumThreads torch_threads = nullptr;
  OmpMaxThreads openmp_threads = nullptr;

  Others() {
    for (const char* name : {"libtorch_cpu.so", "libtorch_cpu.dylib"}) {
      void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
      if (!library) continue;
      torch_loop = symbol<TorchParallelFor>(library, "torch_parallel_for");
      torch_threads = symbol<TorchNumThreads>(library, "torch_get_num_threads");
      if (torch_loop && torch_threads) return;
      torch_loop = nullptr;
      torch_threads = nullptr;
    }
    if (void* library = dlopen("libgomp.so.1", RTLD_LAZY))
      openmp_threads = symbol<OmpMaxThreads>(library, "omp_get_max_threads");
  }

  template <class Function>
  static Function symbol(void* library, const char* name) {
    return reinterpret_cast<Function>(dlsym(library, name));
  }

  int threads() const {
    if (torch_threads) {
      uint32_t count = 1;
      torch_threads(&count);
      return static_cast<int>(count);
    }
    return openmp_threads ? openmp_threads()
                          : static_cast<int>(std::thread::hardware_concurrency());
  }
};

const Others& others() {
  static const Others found;
  return found;
}

thread_local int limit = 0;
thread_local bool in_long_call = false;

bool on_torch() { return others().torch_loop && !in_long_call; }

// ---- loops on the threads of torch ----

// OpenMP's threads look out for work so long at least after a loop.
constexpr double kOpenMPLooksOut = 500e-6;

struct TorchTeam {
  Stragglers stragglers;
  Clock::time_point last;  // end of a loop of ours

  void run(int64_t workers, TeamBody body, void* context) {
    if (stragglers.expected()) return body(0, context);
    struct Region {
      TeamBody body;
      void* context;
      Clock::time_point done;  // of the caller's own work
    } region{body, context, {}};
    const Clock::time_point begin = Clock::now();
    others().torch_loop(
        0, workers, 1,
        [](int64_t begin, int64_t end, void* given) {
          const FlushDenormals flush;
          Region& r = *static_cast<Region*>(given);
          for (int64_t worker = begin; worker < end; ++worker) r.body(worker, r.context);
          if (begin == 0) r.done = Clock::now();
        },
        &region);
    last = Clock::now();
    const auto seconds = [](Clock::duration time) {
      return std::chrono::duration<double>(time).count();
    };
    stragglers.waited(seconds(last - region.done), seconds(region.done - begin));
  }
};

thread_local TorchTeam torch_team;

bool awake() {
  return on_torch() ? seconds_since(torch_team.last) < kOpenMPLooksOut : team_is_awake();
}

// ---- how long another thread needs to arrive ----

// The loop ends with the first work of another thread, or after a millisecond.
double time_of_arrival() {
  std::atomic<bool> there{false};
  const Clock::time_point begin = Clock::now();
  run_workers(
      2,
      [](int64_t worker, void* context) {
        auto& other = *static_cast<std::atomic<bool>*>(context);
        const Clock::time_point from = Clock::now();
        if (worker > 0) other.store(true);
        while (!other.load() && seconds_since(from) < 1e-3) {
        }
      },
      &there);
  return seconds_since(begin);
}

double median_arrival(int count, double pause) {
  std::vector<double> times;
  for (int i = 0; i < count; ++i) {
    if (pause > 0) std::this_thread::sleep_for(std::chrono::duration<double>(pause));
    times.push_back(time_of_arrival());
  }
  std::nth_element(times.begin(), times.begin() + count / 2, times.end());
  return times[static_cast<size_t>(count / 2)];
}

Latency measure_latency() {
  median_arrival(9, 0);  // the threads begin
  const double awake = median_arrival(31, 0), asleep = median_arrival(7, 200e-6);
  return {awake, std::max(awake, asleep)};
}

// A loop is worth threads if it takes so many times as long as one of them needs to arrive. The
// loops of a step are less even, and their data goes from core to core.
constexpr double kWorth = 4, kWorthInStep = 20;

double seconds_on_one_core(double multiply_adds) {
  static const double per_second = fma_peak(100e-6) / 2 / 2;  // half of the peak
  return multiply_adds / per_second;
}

}  // namespace

LongCall::LongCall() : before_(in_long_call) { in_long_call = true; }
LongCall::~LongCall() { in_long_call = before_; }

Latency thread_latency() {
  static const Latency measured = [] {  // the same for both kinds of threads
    const LongCall own_team;
    return measure_latency();
  }();
  return measured;
}

void run_workers(int64_t workers, TeamBody body, void* context) {
  if (workers <= 1 || in_region())
    body(0, context);
  else if (on_torch())
    torch_team.run(workers, body, context);
  else
    run_team(workers, body, context);
}

int max_threads() {
  const int threads = others().threads();
  if (threads < 1) return 1;
  return limit > 0 && limit < threads ? limit : threads;
}

int limit_threads(int count) {
  const int before = limit;
  limit = count > 0 ? count : 0;
  return before;
}

const char* parallel_source() {
  return others().torch_threads ? "torch" : others().openmp_threads ? "openmp" : "system";
}

bool worth_threads(double multiply_adds) {
  if (in_region() || max_threads() < 2) return false;
  const Latency latency = thread_latency();
  return seconds_on_one_core(multiply_adds) > kWorth * (awake() ? latency.awake : latency.asleep);
}

bool step_worth_threads(double multiply_adds, int loops) {
  if (in_region() || max_threads() < 2) return false;
  return seconds_on_one_core(multiply_adds) > kWorthInStep * loops * thread_latency().awake;
}

}  // namespace mlpkern::cpu
