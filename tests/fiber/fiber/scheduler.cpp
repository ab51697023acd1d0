#include "fiber/scheduler.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "fiber/async_copy.h"
#include "fiber/context.h"
#include "fiber/shared_memory.h"
#include "fiber/warp.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace mlpkern::fiber {
namespace {

enum class State { ready, at_barrier, in_warp, exited };

struct Thread {
  Context context;
  State state;
  uint3 index;
  const char* waits_in;  // what it waits in, where, and for which lanes
  Site site;
  unsigned mask;
  AsyncCopies copies;
};

Order order = Order::forward;
uint64_t seed = 1, random_state = 1;
int multiprocessor_count = 132;
size_t shared_bytes_limit = 227 << 10;

const Grid* grid = nullptr;  // the one that runs; null between launches
SharedMemory* shared = nullptr;
std::vector<Thread> threads;
Thread* running = nullptr;  // null while the scheduler itself runs
Context scheduler;
unsigned exits = 0;
int count_true = 0, counted = 0;  // of block_count: being gathered, and of the last barrier

uint64_t next_random() {
  random_state += 0x9E3779B97F4A7C15u;  // splitmix64
  uint64_t z = random_state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

void enter() {
  Context::begun(scheduler);
  grid->body(grid->arguments);
  running->state = State::exited;
  ++exits;
  Context::change(running->context, scheduler, /*last=*/true);
}

void resume(Thread& thread) {
  running = &thread;
  threadIdx = thread.index;
  Context::change(scheduler, thread.context);
  running = nullptr;
}

void sleep(State state, const char* what, Site site, unsigned mask) {
  Thread& self = *running;
  self.state = state;
  self.waits_in = what;
  self.site = site;
  self.mask = mask;
  Context::change(self.context, scheduler);
}

// Lets every thread that can run do so until its next wait, in the chosen order. False if none can.
bool take_turns(std::vector<unsigned>& permutation) {
  const unsigned n = static_cast<unsigned>(threads.size());
  bool any = false;
  const auto visit = [&](unsigned i) {
    if (threads[i].state != State::ready) return false;
    resume(threads[i]);
    return any = true;
  };
  const unsigned warps = (n + 31) / 32;
  switch (order) {
    case Order::forward:
      for (unsigned i = 0; i < n; ++i) visit(i);
      break;
    case Order::reverse:
      for (unsigned i = n; i-- > 0;) visit(i);
      break;
    case Order::random:
      for (unsigned i = n; i > 1; --i)
        std::swap(permutation[i - 1], permutation[next_random() % i]);
      for (unsigned i : permutation) visit(i);
      break;
    case Order::greedy_first:
      for (unsigned w = 0; w < warps; ++w)
        for (bool again = true; again;) {
          again = false;
          for (unsigned i = 32 * w; i < std::min(n, 32 * w + 32); ++i) again |= visit(i);
        }
      break;
    case Order::greedy_last:
      for (unsigned w = warps; w-- > 0;)
        for (bool again = true; again;) {
          again = false;
          for (unsigned i = std::min(n, 32 * w + 32); i-- > 32 * w;) again |= visit(i);
        }
      break;
  }
  return any;
}

// What thread i does, "waits in __syncthreads at file:line".
void describe(char* text, size_t size, unsigned i) {
  const Thread& thread = threads[i];
  if (thread.state == State::exited)
    std::snprintf(text, size, "thread %u has exited", i);
  else if (thread.state == State::in_warp)
    std::snprintf(text, size, "thread %u waits in %s of the lanes %08x at %s:%d", i,
                  thread.waits_in, thread.mask, thread.site.file, thread.site.line);
  else
    std::snprintf(text, size, "thread %u waits in %s at %s:%d", i, thread.waits_in,
                  thread.site.file, thread.site.line);
}

// Nobody can run: either all stand at one barrier, or the kernel is wrong.
void release_barrier() {
  unsigned at_barrier = 0, in_warp = 0, exited = 0, first = 0, other = 0;
  const unsigned n = static_cast<unsigned>(threads.size());
  for (unsigned i = 0; i < n; ++i) {
    const Thread& thread = threads[i];
    at_barrier += thread.state == State::at_barrier;
    if (thread.state == State::in_warp && in_warp++ == 0) other = i;
    if (thread.state == State::exited && exited++ == 0 && in_warp == 0) other = i;
    if (thread.state == State::at_barrier && at_barrier == 1) first = i;
  }
  char one[400], two[400];
  if (in_warp) {
    const unsigned warp = other / 32 * 32;
    describe(one, sizeof one, other);
    for (unsigned lane = 0; lane < 32 && warp + lane < n; ++lane) {
      const Thread& peer = threads[warp + lane];
      const bool waits_for_it = threads[other].mask >> lane & 1;
      const bool came = peer.state == State::in_warp && peer.mask == threads[other].mask;
      if (!waits_for_it || came) continue;
      describe(two, sizeof two, warp + lane);
      refuse("deadlock: %s, but %s", one, two);
    }
    refuse("deadlock: %s", one);
  }
  describe(one, sizeof one, first);
  if (exited) {
    describe(two, sizeof two, other);
    refuse("divergent barrier: %s, but %s", one, two);
  }
  for (unsigned i = 0; i < n; ++i) {
    if (threads[i].site == threads[first].site) continue;
    describe(two, sizeof two, i);
    refuse("divergent barrier: %s, but %s", one, two);
  }
  counted = count_true;
  count_true = 0;
  for (Thread& thread : threads) thread.state = State::ready;
}

void run_block(std::vector<unsigned>& permutation) {
  shared->poison();
  forget_warps(static_cast<unsigned>((threads.size() + 31) / 32));
  exits = 0;
  count_true = 0;
  for (unsigned i = 0; i < threads.size(); ++i) {
    threads[i].state = State::ready;
    threads[i].context.prepare(stack_of(i), kStackBytes, enter);
  }
  while (exits < threads.size())
    if (!take_turns(permutation)) release_barrier();
  if (!shared->guards_intact())
    refuse("wrote outside its %zu bytes of dynamic shared memory", grid->shared_bytes);
  for (Thread& thread : threads) {
    bool unfinished = !thread.copies.open.empty();
    for (const auto& group : thread.copies.groups) unfinished |= !group.empty();
    if (unfinished) {
      running = &thread;
      refuse("exited with copies that it never waited for");
    }
    thread.copies.groups.clear();
  }
}

}  // namespace

void set_order(Order order_, uint64_t seed_) { order = order_, seed = seed_; }

const char* name_of(Order order_) {
  const char* const names[] = {"forward", "reverse", "random", "greedy_first", "greedy_last"};
  return names[static_cast<int>(order_)];
}

void set_multiprocessors(int count) { multiprocessor_count = count; }
int multiprocessors() { return multiprocessor_count; }
void set_shared_limit(size_t bytes) { shared_bytes_limit = bytes; }
size_t shared_limit() { return shared_bytes_limit; }

bool run(const Grid& launched) {
  const dim3 b = launched.blocks, t = launched.threads;
  const uint64_t in_block = uint64_t{t.x} * t.y * t.z;
  if (in_block == 0 || in_block > 1024 || t.z > 64 || b.x == 0 || b.x > 0x7fffffff || b.y == 0 ||
      b.y > 65535 || b.z == 0 || b.z > 65535 || launched.shared_bytes > shared_bytes_limit)
    return false;
  SharedMemory memory(launched.shared_bytes, reinterpret_cast<const void*>(launched.body));
  grid = &launched;
  shared = &memory;
  gridDim = b;
  blockDim = t;
  threads.resize(in_block);
  for (unsigned i = 0; i < in_block; ++i)
    threads[i].index = {i % t.x, i / t.x % t.y, i / t.x / t.y};
  std::vector<unsigned> permutation(in_block);
  std::iota(permutation.begin(), permutation.end(), 0u);

  random_state = seed;
  const uint64_t count = uint64_t{b.x} * b.y * b.z;
  // Blocks in a random order without a list of them: i -> (i * stride + start) mod count.
  uint64_t stride = 1, start = 0;
  if (order == Order::random) {
    start = next_random() % count;
    do stride = 1 + (next_random() >> 33) % count;
    while (std::gcd(stride, count) != 1);
  }
  const bool backwards = order == Order::reverse || order == Order::greedy_last;
  uint64_t linear = start;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t block = backwards ? count - 1 - i : linear;
    linear = (linear + stride) % count;
    blockIdx = {static_cast<unsigned>(block % b.x), static_cast<unsigned>(block / b.x % b.y),
                static_cast<unsigned>(block / b.x / b.y)};
    run_block(permutation);
  }
  grid = nullptr;
  shared = nullptr;
  return true;
}

void refuse(const char* pattern, ...) {
  char message[1200];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(message, sizeof message, pattern, arguments);
  va_end(arguments);
  std::fprintf(stderr, "fiber: %s\n", message);
  if (grid) {
    std::fprintf(stderr, "  in %s\n  block (%u, %u, %u)", grid->kernel, blockIdx.x, blockIdx.y,
                 blockIdx.z);
    if (running)
      std::fprintf(stderr, ", thread (%u, %u, %u)", running->index.x, running->index.y,
                   running->index.z);
    std::fprintf(stderr, ", order %s\n", name_of(order));
  }
  std::abort();
}

unsigned thread_number() { return static_cast<unsigned>(running - threads.data()); }
unsigned threads_in_block() { return static_cast<unsigned>(threads.size()); }
bool has_exited(unsigned thread) { return threads[thread].state == State::exited; }

void block_barrier(const char* what, Site site) { sleep(State::at_barrier, what, site, 0); }

int block_count(bool predicate, const char* what, Site site) {
  count_true += predicate;
  block_barrier(what, site);
  return counted;
}

void sleep_in_warp(const char* what, Site site, unsigned mask) {
  sleep(State::in_warp, what, site, mask);
}

void wake(unsigned thread) { threads[thread].state = State::ready; }

AsyncCopies& copies_of_thread() { return running->copies; }

void* dynamic_shared_memory() { return shared->dynamic(); }

}  // namespace mlpkern::fiber
