#include "fiber/run/context.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(MLPKERN_FIBER_UCONTEXT)
// void mlpkern_fiber_switch(void** save, void* load): saves the registers that a call preserves
// (System V ABI) on the current stack, and restores those on the other.
extern "C" void mlpkern_fiber_switch(void** save, void* load);
asm(R"(
  .text
  .globl mlpkern_fiber_switch
  .hidden mlpkern_fiber_switch
  .type mlpkern_fiber_switch, @function
mlpkern_fiber_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  pop %rcx
  jmp *%rcx
  .size mlpkern_fiber_switch, .-mlpkern_fiber_switch
)");
#endif

namespace mlpkern::fiber {

#if defined(__SANITIZE_ADDRESS__)
const size_t kStackBytes = 512 << 10;  // frames with red zones are several times as large
#else
const size_t kStackBytes = 128 << 10;
#endif

void Context::prepare(unsigned char* stack, size_t bytes, void (*entry)()) {
  stack_ = stack;
  bytes_ = bytes;
  fake_stack_ = nullptr;
#if defined(MLPKERN_FIBER_UCONTEXT)
  getcontext(&registers_);
  registers_.uc_stack.ss_sp = stack;
  registers_.uc_stack.ss_size = bytes;
  registers_.uc_link = nullptr;
  makecontext(&registers_, entry, 0);
#else
  // As if `entry` had been called from address 0: return address, then six saved registers.
  auto** top =
      reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15});
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
#endif
}

#if defined(__SANITIZE_ADDRESS__)
void Context::begun(Context& from) {
  const void* stack = nullptr;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &from.bytes_);
  from.stack_ = static_cast<const unsigned char*>(stack);
}
#else
void Context::begun(Context&) {}
#endif

void Context::change(Context& from, Context& to, [[maybe_unused]] bool last) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack_, to.stack_, to.bytes_);
#endif
#if defined(MLPKERN_FIBER_UCONTEXT)
  swapcontext(&from.registers_, &to.registers_);
#else
  mlpkern_fiber_switch(&from.stack_pointer_, to.stack_pointer_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

unsigned char* stack_of(unsigned i) {
  static std::vector<unsigned char*> stacks;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  while (stacks.size() <= i) {
    void* memory = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
      std::perror("fiber: no memory for the stack of a thread");
      std::abort();
    }
    stacks.push_back(static_cast<unsigned char*>(memory) + page);
  }
  return stacks[i];
}

}  // namespace mlpkern::fiber
