// Sleeping until a word in memory changes: the futex of Linux, elsewhere one condition variable.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mlpkern::cpu {

// For a loop that waits for another thread.
static inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

using Word = std::atomic<uint32_t>;

#if defined(__linux__)

// Returns when somebody wakes, at once if *word is not `value`, or for no reason.
static inline void sleep_while(const Word* word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
static inline void wake_all(const Word* word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

#else

struct Sleepers {
  std::mutex mutex;
  std::condition_variable changed;
};
inline Sleepers& sleepers() {
  static Sleepers all;
  return all;
}
static inline void sleep_while(const Word* word, uint32_t value) {
  std::unique_lock<std::mutex> lock(sleepers().mutex);
  if (word->load() == value) sleepers().changed.wait(lock);
}
static inline void wake_all(const Word*) {
  {
    const std::lock_guard<std::mutex> lock(sleepers().mutex);
  }
  sleepers().changed.notify_all();
}

#endif

}  // namespace mlpkern::cpu
