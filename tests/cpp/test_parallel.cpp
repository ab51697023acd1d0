// The teams of threads: every index is run once for any number of threads, nested regions are
// serial, and nobody waits for a thread that has no core.
#include "cpu/threads/parallel.h"

#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

void check_every_index_once(int64_t count) {
  std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
  cpu::parallel_for(count, [&](int64_t i) { ++visits[i]; });
  for (int64_t i = 0; i < count; ++i)
    CHECK(visits[i] == 1, "index %lld of %lld was visited %d times", static_cast<long long>(i),
          static_cast<long long>(count), visits[i].load());
}

}  // namespace

TEST_CASE(every_index_is_visited_once) {
  for (int threads : {1, 2, 3, 8}) {
    set_threads(threads);
    for (int64_t count : {0, 1, 2, 3, 7, 8, 9, 1000}) check_every_index_once(count);
  }
}

TEST_CASE(without_torch_openmp_or_the_cores_say_how_many) {
  const std::string source = cpu::parallel_source();
  CHECK(source == "openmp" || source == "system", "the source is %s", source.c_str());
  set_threads(3);
  CHECK(source == "system" || cpu::max_threads() == 3, "max_threads() is %d", cpu::max_threads());
}

TEST_CASE(a_region_inside_a_region) {
  set_threads(2);
  std::vector<std::atomic<int>> visits(12);
  cpu::parallel_for(3, [&](int64_t outer) {
    cpu::parallel_for(4, [&](int64_t inner) { ++visits[outer * 4 + inner]; });
  });
  for (size_t i = 0; i < visits.size(); ++i)
    CHECK(visits[i] == 1, "index %zu was visited %d times", i, visits[i].load());
}

TEST_CASE(a_region_in_a_new_thread) {
  std::thread([] { check_every_index_once(100); }).join();
}

TEST_CASE(regions_of_several_threads_at_once) {
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([] {
      set_threads(3);
      for (int round = 0; round < 200; ++round) check_every_index_once(round % 17);
    });
  for (std::thread& caller : callers) caller.join();
}

// Whether every thread comes to a loop in which each item waits for the others.
bool all_come(int threads) {
  std::atomic<int> there{0};
  cpu::parallel_for_dynamic(threads, [&](int64_t, int64_t) {
    ++there;
    const auto begin = std::chrono::steady_clock::now();
    while (there < threads && std::chrono::steady_clock::now() - begin < std::chrono::seconds(1))
      std::this_thread::yield();
    if (there < threads) there = -threads;  // no item that comes later completes them
  });
  return there == threads;
}

TEST_CASE(every_thread_of_a_team_comes_when_there_is_work_for_it) {
  set_threads(3);
  int tries = 1;  // a busy machine may keep a thread from its core
  while (!all_come(3) && tries < 20) ++tries;
  CHECK(tries < 20, "not all of 3 threads came in %d loops", tries);
}

TEST_CASE(uneven_items_keep_the_threads) {
  set_threads(2);
  all_come(2);
  int together = 0;
  for (int i = 0; i < 10; ++i) {
    cpu::parallel_for(2, [](int64_t item) {
      std::this_thread::sleep_for(std::chrono::milliseconds(item == 0 ? 4 : 6));
    });
    together += all_come(2);
  }
  CHECK(together > 5, "2 threads came to %d of 10 loops after an uneven one", together);
}

TEST_CASE(a_forked_process_has_a_team_of_its_own) {
  if (*EMULATOR) return;  // QEMU 7.2 aborts where a forked process starts a thread
  set_threads(3);
  check_every_index_once(100);
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int> visits{0};
    cpu::parallel_for(1000, [&](int64_t) { ++visits; });
    _exit(visits == 1000 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0, "the child ended with status %d", status);
}

#if defined(__linux__)
TEST_CASE(threads_without_a_core_cost_little) {
  std::thread([] {  // its team begins on the one core that it may use
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0, "the thread cannot be bound to a core");
    const auto seconds = [](int threads) {
      set_threads(threads);
      double best = 1e9;
      for (int round = 0; round < 5; ++round) {
        const auto begin = std::chrono::steady_clock::now();
        for (int region = 0; region < 200; ++region)
          cpu::parallel_for(4, [](int64_t) {
            for (volatile int i = 0; i < 20000; i = i + 1) {
            }
          });
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
        best = taken.count() < best ? taken.count() : best;
      }
      return best;
    };
    const double alone = seconds(1), with_threads = seconds(4);
    CHECK(with_threads < 2 * alone, "%.3g s with four threads on a core, %.3g s with one",
          with_threads, alone);
  })
      .join();
}
#endif

TEST_CASE(a_limit_holds_in_its_thread_alone) {
  set_threads(8);
  const int all = cpu::max_threads();
  CHECK(cpu::limit_threads(1) == 0, "there was a limit");
  CHECK(cpu::max_threads() == 1, "max_threads() is %d", cpu::max_threads());
  std::atomic<int> others{0};
  const std::thread::id here = std::this_thread::get_id();
  cpu::parallel_for(100, [&](int64_t) { others += std::this_thread::get_id() != here; });
  CHECK(others == 0, "%d of 100 indices ran elsewhere", others.load());
  std::thread([&] {
    set_threads(8);
    CHECK(cpu::max_threads() == all, "max_threads() of another thread is %d", cpu::max_threads());
  }).join();
  for (int limit : {2, 3, 99}) {
    cpu::limit_threads(limit);
    CHECK(cpu::max_threads() == (limit < all ? limit : all), "max_threads() is %d under %d",
          cpu::max_threads(), limit);
    check_every_index_once(100);
  }
  CHECK(cpu::limit_threads(0) == 99, "the limit was another");
  CHECK(cpu::max_threads() == all, "max_threads() stays %d", cpu::max_threads());
}
