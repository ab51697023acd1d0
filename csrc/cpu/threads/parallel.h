// Parallel loops. torch.set_num_threads says how many threads there are when torch is loaded, else
// OpenMP, else the number of cores.
//
// The loops of a short call run on the threads of torch, which still look out for work of torch and
// would keep the cores from others. A long call (LongCall), and a program without torch, uses a
// team of its own (team.h). Which thread runs which index depends on chance. A body writes only
// what belongs to its index, so the results depend neither on that nor on the number of threads.
#pragma once

#include <cstdint>

#include "cpu/threads/team.h"

namespace mlpkern::cpu {

// The most threads of a loop that the calling thread starts.
int max_threads();

// Bounds max_threads() of the calling thread, 0 for no bound; returns the previous bound.
int limit_threads(int count);

// "torch", "openmp" or "system": who says how many threads there are.
const char* parallel_source();

// As long as an object lives, loops of this thread run on its own team.
class LongCall {
 public:
  LongCall();
  ~LongCall();
  LongCall(const LongCall&) = delete;
  LongCall& operator=(const LongCall&) = delete;

 private:
  const bool before_;
};

// Seconds from the begin of a loop to the first work of another thread, measured once: of a thread
// that looks out for it, or of one that sleeps.
struct Latency {
  double awake, asleep;
};
Latency thread_latency();

// Whether work of so many multiply-adds is worth several threads: the measured time until another
// one begins must be a small part of what the work takes on one core, at half of its measured peak.
bool worth_threads(double multiply_adds);

// The same for a step that needs about `loops` loops, one soon after another.
bool step_worth_threads(double multiply_adds, int loops);

// Calls body(0, context) in the calling thread and body(w, context), 0 < w < workers, in others
// that are free meanwhile; returns when all of them have. Each call takes work until none is left.
void run_workers(int64_t workers, TeamBody body, void* context);

// body(i, worker) for i in [0, count). Each worker takes the items of its own share of the range in
// order, then items left in other shares. So the next item is mostly the adjacent one, and in a
// second loop over the same range each core finds its data in its cache. worker < kMaxWorkers
// identifies the scratch of this call.
constexpr int64_t kMaxWorkers = 64;
template <class Body>
static inline void parallel_for_dynamic(int64_t count, const Body& body) {
  struct alignas(64) Share {
    int64_t next, end;
  };
  struct Loop {
    const Body& body;
    int64_t workers;
    Share shares[kMaxWorkers];
  };
  int64_t workers = max_threads() < kMaxWorkers ? max_threads() : kMaxWorkers;
  if (workers > count) workers = count;
  if (workers <= 1 || in_region()) {
    for (int64_t i = 0; i < count; ++i) body(i, int64_t{0});
    return;
  }
  Loop loop{body, workers, {}};
  for (int64_t w = 0; w < workers; ++w)
    loop.shares[w] = {count * w / workers, count * (w + 1) / workers};
  run_workers(
      workers,
      [](int64_t worker, void* context) {
        Loop& l = *static_cast<Loop*>(context);
        for (int64_t w = worker; w < worker + l.workers; ++w) {
          Share& share = l.shares[w < l.workers ? w : w - l.workers];
          for (int64_t i; (i = __atomic_fetch_add(&share.next, 1, __ATOMIC_RELAXED)) < share.end;)
            l.body(i, worker);
        }
      },
      &loop);
}

// body(i) for i in [0, count), as above.
template <class Body>
static inline void parallel_for(int64_t count, const Body& body) {
  parallel_for_dynamic(count, [&](int64_t i, int64_t) { body(i); });
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
