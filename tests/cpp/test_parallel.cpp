// The thread pool: every index once, whatever the number of threads, and nested regions stay
// serial.
#include "cpu/parallel.h"

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
