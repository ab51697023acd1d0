#include "fiber/run/grid.h"

#include <numeric>

#include "fiber/run/scheduler.h"

uint3 blockIdx;
dim3 blockDim, gridDim;

namespace mlpkern::fiber {
namespace {

Order chosen_order = Order::forward;
uint64_t chosen_seed = 1, random_state = 1;
int multiprocessor_count = 132;
size_t shared_bytes_limit = 227 << 10;

bool acceptable(const Grid& grid) {
  const dim3 b = grid.blocks, t = grid.threads;
  const uint64_t in_block = uint64_t{t.x} * t.y * t.z;
  return in_block > 0 && in_block <= 1024 && t.z <= 64 && b.x > 0 && b.x <= 0x7fffffff && b.y > 0 &&
         b.y <= 65535 && b.z > 0 && b.z <= 65535 && grid.shared_bytes <= shared_bytes_limit;
}

// The numbers of the blocks in the chosen order. At random without a list of them:
// i -> (i * stride + start) mod count, with a stride that has no factor in common with the count.
class BlockNumbers {
 public:
  explicit BlockNumbers(uint64_t count) : count_(count), at_(0), stride_(1 % count) {
    if (chosen_order == Order::reverse || chosen_order == Order::greedy_last) {
      at_ = count - 1;
      stride_ = count - 1;
    } else if (chosen_order == Order::random && count > 1) {
      at_ = next_random() % count;
      do stride_ = 1 + next_random() % (count - 1);
      while (std::gcd(stride_, count) != 1);
    }
  }
  uint64_t next() {
    const uint64_t now = at_;
    at_ = (at_ + stride_) % count_;  // below 2^63 * 2: at most 2^31 * 65535^2 blocks
    return now;
  }

 private:
  uint64_t count_, at_, stride_;
};

}  // namespace

void set_order(Order order, uint64_t seed) { chosen_order = order, chosen_seed = seed; }
Order order() { return chosen_order; }

const char* name_of(Order order) {
  const char* const names[] = {"forward", "reverse", "random", "greedy_first", "greedy_last"};
  return names[static_cast<int>(order)];
}

void set_multiprocessors(int count) { multiprocessor_count = count; }
int multiprocessors() { return multiprocessor_count; }
void set_shared_limit(size_t bytes) { shared_bytes_limit = bytes; }
size_t shared_limit() { return shared_bytes_limit; }

// splitmix64
uint64_t next_random() {
  random_state += 0x9E3779B97F4A7C15u;
  uint64_t z = random_state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

bool run(const Grid& grid) {
  if (!acceptable(grid)) return false;
  random_state = chosen_seed;
  gridDim = grid.blocks;
  blockDim = grid.threads;
  const dim3 b = grid.blocks;
  const uint64_t count = uint64_t{b.x} * b.y * b.z;
  BlockNumbers numbers(count);
  Scheduler scheduler(grid);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t block = numbers.next();
    blockIdx = {static_cast<unsigned>(block % b.x), static_cast<unsigned>(block / b.x % b.y),
                static_cast<unsigned>(block / b.x / b.y)};
    scheduler.run_block();
  }
  return true;
}

}  // namespace mlpkern::fiber
