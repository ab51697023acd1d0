#include "fiber/run/scheduler.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>

#include "fiber/builtins/async_copy.h"
#include "fiber/builtins/warp.h"
#include "fiber/run/context.h"

uint3 threadIdx;

namespace mlpkern::fiber {
namespace {

enum class State { ready, at_barrier, in_warp, exited };

struct Thread {
  Context context;
  State state;
  uint3 index;
  const char* waits_in;  // the function in which it waits, where, and for which lanes
  Site site;
  unsigned mask;
  AsyncCopies copies;
};

const Grid* grid = nullptr;  // null between launches
SharedMemory* shared = nullptr;
std::vector<Thread> threads;
Thread* running = nullptr;  // null while the scheduler itself runs
Context scheduler;
unsigned exits = 0;                // of this block
unsigned left[32];                 // of each warp, the lanes that have not exited
int votes = 0, counted_votes = 0;  // at the current barrier, at the previous one

void enter() {
  Context::begun(scheduler);
  grid->body(grid->arguments);
  running->state = State::exited;
  left[thread_number() / 32] &= ~(1u << thread_number() % 32);
  ++exits;
  Context::change(running->context, scheduler, /*last=*/true);
}

void sleep(State state, const char* what, Site site, unsigned mask) {
  running->state = state;
  running->waits_in = what;
  running->site = site;
  running->mask = mask;
  Context::change(running->context, scheduler);
}

// "thread 3 waits in __syncthreads at file:line"
std::string description(const Thread& thread) {
  char text[600];
  const long number = &thread - threads.data();
  if (thread.state == State::exited)
    std::snprintf(text, sizeof text, "thread %ld has exited", number);
  else if (thread.state == State::in_warp)
    std::snprintf(text, sizeof text, "thread %ld waits in %s of the lanes %08x at %s:%d", number,
                  thread.waits_in, thread.mask, thread.site.file, thread.site.line);
  else
    std::snprintf(text, sizeof text, "thread %ld waits in %s at %s:%d", number, thread.waits_in,
                  thread.site.file, thread.site.line);
  return text;
}

[[noreturn]] void refuse_two(const char* what, const Thread& one, const Thread& other) {
  refuse("%s: %s, but %s", what, description(one).c_str(), description(other).c_str());
}

// No thread can run: either all wait at one barrier, or the kernel is wrong.
void release_barrier() {
  for (const Thread& thread : threads) {
    if (thread.state != State::in_warp) continue;
    const size_t number = static_cast<size_t>(&thread - threads.data()), warp = number / 32 * 32;
    for (size_t i = warp; i < warp + 32 && i < threads.size(); ++i)
      if (thread.mask >> (i - warp) & 1 &&
          (threads[i].state != State::in_warp || threads[i].mask != thread.mask))
        refuse_two("deadlock", thread, threads[i]);
    refuse("deadlock: %s", description(thread).c_str());
  }
  const auto waits = [](const Thread& thread) { return thread.state == State::at_barrier; };
  const Thread& first = *std::find_if(threads.begin(), threads.end(), waits);
  for (const Thread& thread : threads)
    if (!waits(thread) || thread.site != first.site) refuse_two("divergent barrier", first, thread);
  counted_votes = votes;
  votes = 0;
  for (Thread& thread : threads) thread.state = State::ready;
}

void check_copies_finished() {
  for (Thread& thread : threads) {
    bool unfinished = !thread.copies.open.empty();
    for (const auto& group : thread.copies.groups) unfinished |= !group.empty();
    running = &thread;
    if (unfinished) refuse("exited without waiting for its asynchronous copies");
    running = nullptr;
    thread.copies.groups.clear();
  }
}

}  // namespace

// --- The block -----------------------------------------------------------------------------------
Scheduler::Scheduler(const Grid& launched)
    : shared_(launched.shared_bytes, reinterpret_cast<const void*>(launched.body)) {
  grid = &launched;
  shared = &shared_;
  const dim3 size = launched.threads;
  threads.resize(size_t{size.x} * size.y * size.z);
  for (unsigned i = 0; i < threads.size(); ++i)
    threads[i].index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
  permutation_.resize(threads.size());
  std::iota(permutation_.begin(), permutation_.end(), 0u);
}

Scheduler::~Scheduler() {
  grid = nullptr;
  shared = nullptr;
}

void Scheduler::run_block() {
  shared_.poison(order() == Order::reverse || order() == Order::greedy_last);
  forget_meetings(threads.size());
  exits = 0;
  votes = 0;
  for (unsigned& lanes : left) lanes = 0;
  for (unsigned i = 0; i < threads.size(); ++i) {
    left[i / 32] |= 1u << i % 32;
    threads[i].state = State::ready;
    threads[i].context.prepare(stack_of(i), kStackBytes, enter);
  }
  while (exits < threads.size())
    if (!take_turns()) release_barrier();
  if (!shared_.guards_intact())
    refuse("wrote outside its %zu bytes of dynamic shared memory", grid->shared_bytes);
  check_copies_finished();
}

// Lets a thread run until its next wait, if it can.
bool Scheduler::visit(unsigned i) {
  Thread& thread = threads[i];
  if (thread.state != State::ready) return false;
  running = &thread;
  threadIdx = thread.index;
  Context::change(scheduler, thread.context);
  running = nullptr;
  return true;
}

// Lets the lanes of a warp run until none of them can.
bool Scheduler::visit_warp(unsigned warp, bool backwards) {
  const unsigned first = 32 * warp;
  const unsigned lanes = std::min(32u, static_cast<unsigned>(threads.size()) - first);
  bool any = false;
  for (bool again = true; again; any |= again) {
    again = false;
    for (unsigned i = 0; i < lanes; ++i) again |= visit(first + (backwards ? lanes - 1 - i : i));
  }
  return any;
}

// Lets every thread that can run do so once, or in the greedy orders as far as it can. False if
// none could.
bool Scheduler::take_turns() {
  const auto n = static_cast<unsigned>(threads.size()), warps = (n + 31) / 32;
  bool any = false;
  switch (order()) {
    case Order::forward:
      for (unsigned i = 0; i < n; ++i) any |= visit(i);
      break;
    case Order::reverse:
      for (unsigned i = n; i-- > 0;) any |= visit(i);
      break;
    case Order::random:
      for (unsigned i = n; i > 1; --i)
        std::swap(permutation_[i - 1], permutation_[next_random() % i]);
      for (const unsigned i : permutation_) any |= visit(i);
      break;
    case Order::greedy_first:
      for (unsigned w = 0; w < warps; ++w) any |= visit_warp(w, false);
      break;
    case Order::greedy_last:
      for (unsigned w = warps; w-- > 0;) any |= visit_warp(w, true);
      break;
  }
  return any;
}

// --- What a thread can ask for -------------------------------------------------------------------
unsigned thread_number() { return static_cast<unsigned>(running - threads.data()); }
unsigned lanes_left(unsigned warp) { return left[warp]; }

int block_barrier(const char* what, Site site, bool predicate) {
  votes += predicate;
  sleep(State::at_barrier, what, site, 0);
  return counted_votes;
}

void sleep_in_warp(const char* what, Site site, unsigned mask) {
  sleep(State::in_warp, what, site, mask);
}
void wake(unsigned thread) { threads[thread].state = State::ready; }

AsyncCopies& copies_of_thread() { return running->copies; }
void* dynamic_shared_memory() { return shared->dynamic(); }

// --- Messages ------------------------------------------------------------------------------------
namespace {

void print_place() {
  if (!grid) return;
  std::fprintf(stderr, "  %s\n  block (%u, %u, %u)", grid->kernel, blockIdx.x, blockIdx.y,
               blockIdx.z);
  if (running)
    std::fprintf(stderr, ", thread (%u, %u, %u)", running->index.x, running->index.y,
                 running->index.z);
  std::fprintf(stderr, ", order %s\n", name_of(order()));
}

}  // namespace

void refuse(const char* pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  std::fputs("fiber: ", stderr);
  std::vfprintf(stderr, pattern, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  print_place();
  std::abort();
}

}  // namespace mlpkern::fiber

// Called by AddressSanitizer before its report.
extern "C" __attribute__((visibility("default"))) void __asan_on_error();
void __asan_on_error() { mlpkern::fiber::print_place(); }
