// Runs a grid on one CPU thread: block after block, every CUDA thread a fiber that runs until it
// must wait for others. What a program may not rely on is therefore made extreme: between two
// barriers a thread sees either nothing or everything of what another one does, and the order
// chosen here decides which.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fiber/site.h"
#include "fiber/vector_types.h"

// The built-in variables of a kernel, those of the fiber that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace mlpkern::fiber {

// --- For tests -----------------------------------------------------------------------------------

// Who runs next among those who can.
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
const char* name_of(Order order);

// What the device is said to have. Results must not depend on it.
void set_multiprocessors(int count);
int multiprocessors();
void set_shared_limit(size_t bytes);  // of dynamic shared memory a block may ask for
size_t shared_limit();

// --- For the twins of CUDA's headers -------------------------------------------------------------

struct Grid {
  const char* kernel;  // its name, for messages
  dim3 blocks, threads;
  size_t shared_bytes;
  void (*body)(const void* arguments);  // calls the kernel once, for the thread that runs
  const void* arguments;
};

// Runs all of it. False if no device would accept the launch.
bool run(const Grid& grid);

// Prints what a kernel did wrong, with kernel, block, thread and order, and aborts.
[[noreturn]] void refuse(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

// The number of the running thread in its block, x fastest.
unsigned thread_number();

// Waits for all threads of the block. An exit is no arrival, and all must stand at the same line.
void block_barrier(const char* what, Site site);

// Whether the predicates of all threads of the block: how many are true.
int block_count(bool predicate, const char* what, Site site);

// Waits until woken. `what` and `site` say what for; `mask` names the lanes of the warp that must
// come.
void sleep_in_warp(const char* what, Site site, unsigned mask);
void wake(unsigned thread);
unsigned threads_in_block();
bool has_exited(unsigned thread);

// Storage of each thread for asynchronous copies, see async_copy.h.
struct AsyncCopies;
AsyncCopies& copies_of_thread();

}  // namespace mlpkern::fiber
