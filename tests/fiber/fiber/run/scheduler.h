// The threads of the running block: each is a fiber, and runs until it must wait for others.
#pragma once

#include <vector>

#include "fiber/builtins/vector_types.h"
#include "fiber/run/grid.h"
#include "fiber/run/shared_memory.h"
#include "fiber/run/site.h"

// The built-in variables of a kernel, for the running fiber.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace mlpkern::fiber {

// For the blocks of one grid, one after the other.
class Scheduler {
 public:
  explicit Scheduler(const Grid& grid);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  void run_block();

 private:
  bool visit(unsigned thread);
  bool visit_warp(unsigned warp, bool backwards);
  bool take_turns();

  SharedMemory shared_;
  std::vector<unsigned> permutation_;  // of the threads
};

// --- What a thread can ask for -------------------------------------------------------------------

// Its number in the block, x fastest.
unsigned thread_number();

// The lanes of a warp that exist and have not exited.
unsigned lanes_left(unsigned warp);

// Waits for all threads of the block. A thread that has exited does not count as arrived, and all
// must wait at the same line. Returns the number of threads that gave true.
int block_barrier(const char* what, Site site, bool predicate = false);

// Waits for the lanes `mask` of its warp, until one of them calls wake(thread).
void sleep_in_warp(const char* what, Site site, unsigned mask);
void wake(unsigned thread);

// Its pending asynchronous copies.
struct AsyncCopies;
AsyncCopies& copies_of_thread();

void* dynamic_shared_memory();

// Prints what the kernel did wrong, its name, block, thread and order, and aborts.
[[noreturn]] void refuse(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace mlpkern::fiber
