// Which core a thread runs on. A virtual machine's scheduler may keep a thread on the core of the
// one that woke it while others are idle, since it takes a halted virtual core for one that another
// machine uses.
#pragma once

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#endif

namespace mlpkern::cpu {

#if defined(__linux__)

static inline int this_core() { return sched_getcpu(); }

// Whether the calling thread runs on this core.
static inline bool runs_on(int core) { return this_core() == core; }

// The cores that a thread may use.
class Cores {
 public:
  // Those of the calling thread.
  Cores() { known_ = sched_getaffinity(0, sizeof set_, &set_) == 0; }

  // Calls use(set, bytes) with the cores but this one, if there are any.
  template <class Use>
  void without(int core, const Use& use) const {
    cpu_set_t others = set_;
    if (!known_ || core < 0 || core >= CPU_SETSIZE) return;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) > 0) use(others, sizeof others);
  }

  // The calling thread may use them.
  void allow() const {
    if (known_) sched_setaffinity(0, sizeof set_, &set_);
  }

 private:
  cpu_set_t set_;
  bool known_;
};

// A new thread begins on another core than this one; it may use all of them once it has called
// cores.allow().
static inline void begin_off(int core, const Cores& cores, pthread_attr_t& attributes) {
  cores.without(core, [&](const cpu_set_t& others, size_t bytes) {
    pthread_attr_setaffinity_np(&attributes, bytes, &others);
  });
}

// As long as an object lives, the calling thread does not run on this core, if it has others.
class KeptOff {
 public:
  explicit KeptOff(int core) {
    cores_.without(
        core, [](const cpu_set_t& others, size_t bytes) { sched_setaffinity(0, bytes, &others); });
  }
  ~KeptOff() { cores_.allow(); }
  KeptOff(const KeptOff&) = delete;
  KeptOff& operator=(const KeptOff&) = delete;

 private:
  const Cores cores_;
};

// The calling thread, when it wakes, takes its core at once from a thread that spins there, such as
// one of OpenMP after a loop of torch. For Linux 6.12 and newer, by the shortest slice; older
// kernels mostly do so by themselves.
static inline void wake_promptly() {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice, deadline, period;
  } attributes = {};
  attributes.size = sizeof attributes;
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0) return;
  attributes.slice = 100000;  // nanoseconds
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

#else

static inline void wake_promptly() {}
static inline int this_core() { return -1; }
static inline bool runs_on(int) { return false; }
struct Cores {
  void allow() const {}
};
static inline void begin_off(int, const Cores&, pthread_attr_t&) {}
struct KeptOff {
  explicit KeptOff(int) {}
};

#endif

}  // namespace mlpkern::cpu
