// The shared memory of the running block, static and dynamic. Before each block both are filled
// with a pattern that is NaN in every floating-point format: as integers -1, or in half of the
// orders 0x7FFF, 0x7FFF7FFF ..., so that unwritten memory cannot pass for a flag of the kernel.
//
// `__shared__` arrays are thread_local variables: the linker gathers those of a module in one
// segment (PT_TLS), including those of templates and inline functions, where the shim finds them
// without help from the kernels. All fibers run on one CPU thread, so the block shares them. Other
// variables in that segment are restored after the launch.
#pragma once

#include <cstddef>

namespace mlpkern::fiber {

// The shared memory of one launch; `code` is an address in the module of its kernel.
class SharedMemory {
 public:
  SharedMemory(size_t dynamic_bytes, const void* code);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void poison(bool positive);  // before a block
  bool guards_intact() const;  // after a block: nothing was written around the dynamic part
  void* dynamic() const { return dynamic_; }

 private:
  unsigned char* memory_;
  unsigned char* dynamic_;  // aligned to exactly 16 bytes; ends where the usable memory ends
  size_t dynamic_bytes_;
  unsigned char* static_;
  unsigned char* kept_;  // the static segment as it was
  size_t static_bytes_;
};

}  // namespace mlpkern::fiber
