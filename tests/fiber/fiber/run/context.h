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

// The state with which a stack continues where it stopped. A context without prepare() is that of
// the program's own stack.
class Context {
 public:
  // Makes the next switch to it begin `entry` on the given stack; `entry` must never return.
  void prepare(unsigned char* stack, size_t bytes, void (*entry)());

  // To be called first in an entry: `from` is the context that switched here.
  static void begun(Context& from);

  // Stops `from`, which is running, and continues `to`. After a `last` switch `from` never
  // continues.
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

// The stack of thread `i` of a block, created at its first use and reused by every block. The page
// below it is protected, so that an overflow is noticed.
unsigned char* stack_of(unsigned i);
extern const size_t kStackBytes;

}  // namespace mlpkern::fiber
