#include "orders.h"

namespace mlpkern::testing {
namespace {

struct Run {
  fiber::Order order;
  uint64_t seed;
  int multiprocessors;
};

// The multiprocessors of an H200, one, a few, and a prime.
const Run kRuns[] = {{fiber::Order::forward, 1, 132},     {fiber::Order::reverse, 1, 132},
                     {fiber::Order::greedy_first, 1, 1},  {fiber::Order::greedy_last, 1, 7},
                     {fiber::Order::random, 20260101, 3}, {fiber::Order::random, 42, 132}};

}  // namespace

void run_in_every_order(const std::string& label, const std::vector<Buffer*>& outputs,
                        const std::function<int()>& run, const std::function<void()>& check) {
  std::vector<std::vector<unsigned char>> first;
  for (const Run& how : kRuns) {
    const bool is_first = &how == kRuns;
    set_context(format("%s, %d multiprocessors, ", fiber::name_of(how.order), how.multiprocessors) +
                label);
    fiber::set_order(how.order, how.seed);
    fiber::set_multiprocessors(how.multiprocessors);
    for (Buffer* output : outputs) output->poison();
    const int error = run();
    CHECK(error == 0, "CUDA error %d", error);
    size_t index = 0;
    for (Buffer* output : outputs) {
      CHECK(output->guards_intact(), "wrote outside output %zu", index);
      const auto* bytes = static_cast<const unsigned char*>(output->data());
      if (is_first)
        first.emplace_back(bytes, bytes + output->size());
      else
        CHECK(std::vector<unsigned char>(bytes, bytes + output->size()) == first[index],
              "output %zu depends on the order of threads or the number of multiprocessors", index);
      ++index;
    }
    if (is_first) check();
  }
}

}  // namespace mlpkern::testing
