// Runs a grid on one CPU thread, block after block, and what a test may choose of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fiber/builtins/vector_types.h"

namespace mlpkern::fiber {

// --- For tests -----------------------------------------------------------------------------------

// Who runs next among those who can. A thread runs until it must wait for others, so between two
// barriers it sees either nothing or everything of what another one does: the extremes of what a
// GPU may do.
enum class Order {
  forward,       // all threads in turn, each to its next wait; blocks from the first
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

// What the device is said to have. Results must not depend on it.
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
  void (*body)(const void* arguments);  // calls the kernel once, for the thread that runs
  const void* arguments;
};

// Runs all of it. False if no device would accept the launch.
bool run(const Grid& grid);

// --- For the scheduler ---------------------------------------------------------------------------
uint64_t next_random();  // follows the seed of the order, anew for each grid

}  // namespace mlpkern::fiber
