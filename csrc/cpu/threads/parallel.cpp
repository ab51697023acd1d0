// Finds a thread pool at run time instead of linking one: a second OpenMP runtime beside torch's
// would run its own threads and ignore torch.set_num_threads.
//   1. torch_parallel_for of an already loaded libtorch_cpu (a plain C symbol since torch 2.10);
//   2. GOMP_parallel of libgomp, for programs without torch;
//   3. the calling thread alone.
#include "cpu/threads/parallel.h"

#include <dlfcn.h>

#include <initializer_list>

namespace mlpkern::cpu {
namespace {

using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain, RangeBody body,
                                     void* context);
using TorchNumThreads = int32_t (*)(uint32_t* count);
using GompParallel = void (*)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
using OmpQuery = int (*)();

struct Pool {
  TorchParallelFor torch_parallel_for = nullptr;
  TorchNumThreads torch_num_threads = nullptr;
  GompParallel gomp_parallel = nullptr;
  OmpQuery omp_max_threads = nullptr, omp_thread_num = nullptr, omp_in_parallel = nullptr;

  Pool() {
    if (!find_torch()) find_gomp();
  }

  bool find_torch() {
    for (const char* name : {"libtorch_cpu.so", "libtorch_cpu.dylib"}) {
      void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
      if (!library) continue;
      torch_parallel_for = symbol<TorchParallelFor>(library, "torch_parallel_for");
      torch_num_threads = symbol<TorchNumThreads>(library, "torch_get_num_threads");
      if (torch_parallel_for && torch_num_threads) return true;
      torch_parallel_for = nullptr;
    }
    return false;
  }

  void find_gomp() {
    void* library = dlopen("libgomp.so.1", RTLD_LAZY);
    if (!library) return;
    omp_max_threads = symbol<OmpQuery>(library, "omp_get_max_threads");
    omp_thread_num = symbol<OmpQuery>(library, "omp_get_thread_num");
    omp_in_parallel = symbol<OmpQuery>(library, "omp_in_parallel");
    gomp_parallel = symbol<GompParallel>(library, "GOMP_parallel");
    if (!omp_max_threads || !omp_thread_num || !omp_in_parallel) gomp_parallel = nullptr;
  }

  template <class Function>
  static Function symbol(void* library, const char* name) {
    return reinterpret_cast<Function>(dlsym(library, name));
  }
};

const Pool& pool() {
  static const Pool found;
  return found;
}

struct GompRegion {
  RangeBody body;
  void* context;
  int64_t count;
  int64_t threads;
};

void run_share(void* data) {
  const auto& region = *static_cast<const GompRegion*>(data);
  const int64_t thread = pool().omp_thread_num();
  const int64_t begin = region.count * thread / region.threads;
  const int64_t end = region.count * (thread + 1) / region.threads;
  if (begin < end) region.body(begin, end, region.context);
}

thread_local int limit = 0;

int threads_of_pool() {
  const Pool& threads = pool();
  if (threads.torch_num_threads) {
    uint32_t count = 1;
    threads.torch_num_threads(&count);
    return count > 0 ? static_cast<int>(count) : 1;
  }
  return threads.gomp_parallel ? threads.omp_max_threads() : 1;
}

}  // namespace

void parallel_ranges(int64_t count, RangeBody body, void* context) {
  if (count <= 0) return;
  const Pool& threads = pool();
  if (count > 1 && limit != 1 && threads.torch_parallel_for) {
    const int64_t grain = limit ? (count + limit - 1) / limit : 1;  // of a thread's share
    threads.torch_parallel_for(0, count, grain, body, context);
    return;
  }
  const int64_t wanted = count < max_threads() ? count : max_threads();
  if (wanted > 1 && threads.gomp_parallel && !threads.omp_in_parallel()) {
    GompRegion region{body, context, count, wanted};
    threads.gomp_parallel(run_share, &region, static_cast<unsigned>(wanted), 0);
    return;
  }
  body(0, count, context);
}

int max_threads() {
  const int threads = threads_of_pool();
  return limit > 0 && limit < threads ? limit : threads;
}

int limit_threads(int count) {
  const int before = limit;
  limit = count > 0 ? count : 0;
  return before;
}

const char* parallel_source() {
  if (pool().torch_parallel_for) return "torch";
  return pool().gomp_parallel ? "openmp" : "serial";
}

}  // namespace mlpkern::cpu
