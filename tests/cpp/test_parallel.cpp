// The thread pool: runs every index once for any number of threads; nested regions are serial.
#include "cpu/threads/parallel.h"

#include <atomic>
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

TEST_CASE(without_torch_the_pool_is_openmp_or_the_calling_thread) {
  const std::string source = cpu::parallel_source();
  CHECK(source == "openmp" || source == "serial", "the pool is %s", source.c_str());
  set_threads(3);
  CHECK(cpu::max_threads() == (source == "openmp" ? 3 : 1), "max_threads() is %d",
        cpu::max_threads());
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
