// Parallel loops on the thread pool of the process: torch's own when torch is loaded (so that
// torch.set_num_threads holds in every thread), else OpenMP, else serial (parallel.cpp).
//
// Which thread runs which index depends on the number of threads. A body writes only what belongs
// to its index, so the results do not depend on it.
#pragma once

#include <cstdint>

#include "cpu/threads/flush_denormals.h"

namespace mlpkern::cpu {

using RangeBody = void (*)(int64_t begin, int64_t end, void* context);

// Calls body over disjoint ranges that cover [0, count), on at most max_threads() threads. Runs in
// the calling thread when count is 1 or the call is already inside a parallel region.
void parallel_ranges(int64_t count, RangeBody body, void* context);

int max_threads();

// Bounds max_threads() of the calling thread, 0 for no bound; returns the previous bound.
int limit_threads(int count);

// "torch", "openmp" or "serial": where the threads come from.
const char* parallel_source();

// body(i) for i in [0, count), in contiguous ranges.
template <class Body>
static inline void parallel_for(int64_t count, const Body& body) {
  if (count == 1) {
    body(int64_t{0});
    return;
  }
  const RangeBody run = [](int64_t begin, int64_t end, void* context) {
    const FlushDenormals flush;
    const Body& each = *static_cast<const Body*>(context);
    for (int64_t i = begin; i < end; ++i) each(i);
  };
  parallel_ranges(count, run, const_cast<Body*>(&body));
}

// body(i, worker) for i in [0, count), for items of unequal size or cores of unequal speed. Each
// worker takes the items of its own share of the range in order, then items left in other shares.
// So the next item is mostly the adjacent one, and in a second loop over the same range each core
// finds its data in its cache. worker < kMaxWorkers identifies the scratch of this call.
constexpr int64_t kMaxWorkers = 64;
template <class Body>
static inline void parallel_for_dynamic(int64_t count, const Body& body) {
  int64_t workers = max_threads() < kMaxWorkers ? max_threads() : kMaxWorkers;
  if (workers > count) workers = count;
  struct alignas(64) Share {
    int64_t next, end;
  };
  Share shares[kMaxWorkers];
  for (int64_t w = 0; w < workers; ++w)
    shares[w] = {count * w / workers, count * (w + 1) / workers};
  parallel_for(workers, [&](int64_t worker) {
    for (int64_t w = worker; w < worker + workers; ++w) {
      Share& share = shares[w < workers ? w : w - workers];
      for (int64_t i; (i = __atomic_fetch_add(&share.next, 1, __ATOMIC_RELAXED)) < share.end;)
        body(i, worker);
    }
  });
}

// Lowers *value to `candidate` if that is smaller; -1 means that there is no position yet.
static inline void report_first(int64_t* value, int64_t candidate) {
  int64_t seen = __atomic_load_n(value, __ATOMIC_RELAXED);
  while ((seen < 0 || candidate < seen) &&
         !__atomic_compare_exchange_n(value, &seen, candidate, true, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
}

}  // namespace mlpkern::cpu
