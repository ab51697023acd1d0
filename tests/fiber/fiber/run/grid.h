// Runs a grid on one CPU thread, block after block, and the settings that a test may choose.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fiber/builtins/vector_types.h"

namespace mlpkern::fiber {

// --- For tests -----------------------------------------------------------------------------------

// Which thread runs next. A thread runs until it must wait for others, so between two barriers it
// sees either none or all of the work of another one: the extremes of what a GPU may do.
enum class Order {
  forward,       // all threads in order, each to its next wait; blocks from the first
  reverse,       // the same from the last thread and block
  random,        // a new permutation for every turn; blocks in another one
  greedy_first,  // the first warp runs to the next barrier of the block, then the second ...
  greedy_last    // the last warp, and in it the last lane, first; blocks from the last
};
constexpr Order kOrders[] = {Order::forward, Order::reverse, Order::random, Order::greedy_first,
                             Order::greedy_last};

void set_order(Order order, uint64_t seed = 1);
Order order();
const char* name_of(Order order);

// The properties of the device. Results must not depend on them.
void set_multiprocessors(int count);
int multiprocessors();
void set_shared_limit(size_t bytes);  // of dynamic shared memory that a block may ask for
size_t shared_limit();

// --- For the twin of cuda/device/launch.cuh
// -------------------------------------------------------------

struct Grid {
  const char* kernel;  // its name, for messages
  dim3 blocks, threads;
  size_t shared_bytes;
  void (*body)(const void* arguments);  // calls the kernel for the running thread
  const void* arguments;
};

// Runs the whole grid. False if no device would accept the launch.
bool run(const Grid& grid);

// --- For the scheduler ---------------------------------------------------------------------------
uint64_t next_random();  // seeded by the order, restarted for each grid

}  // namespace mlpkern::fiber
