// A stack that code runs on, and the switch from one to another.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(MLPKERN_FIBER_UCONTEXT)
#define MLPKERN_FIBER_UCONTEXT 1
#endif
#if defined(MLPKERN_FIBER_UCONTEXT)
#include <ucontext.h>
#endif

namespace mlpkern::fiber {

// What a stack needs to go on where it stopped. The one made without prepare() stands for the stack
// that the program came with.
class Context {
 public:
  // Lets `entry` begin on the given stack at the next switch to it; it must never return.
  void prepare(unsigned char* stack, size_t bytes, void (*entry)());

  // First thing in an entry: `from` is the context that switched here.
  static void begun(Context& from);

  // Stops `from`, which is running, and lets `to` go on. A `last` switch is never come back from.
  static void change(Context& from, Context& to, bool last = false);

 private:
  const unsigned char* stack_ = nullptr;  // its bounds, for AddressSanitizer
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
#if defined(MLPKERN_FIBER_UCONTEXT)
  ucontext_t registers_;
#else
  void* stack_pointer_ = nullptr;
#endif
};

// The stack of thread `i` of a block: made when first asked for, used again by every block. The
// page below it cannot be touched, so that an overflow does not go unseen.
unsigned char* stack_of(unsigned i);
extern const size_t kStackBytes;

}  // namespace mlpkern::fiber
