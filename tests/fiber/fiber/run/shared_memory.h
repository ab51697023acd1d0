// The shared memory of the block that runs, static and dynamic. Before each block both are filled
// with what is NaN in every floating-point format: as integers -1, or in half of the orders 0x7FFF,
// 0x7FFF7FFF ..., so that what nobody wrote cannot pass for a mark of the kernel.
//
// `__shared__` arrays are thread_local variables: the linker gathers those of a module in one
// segment (PT_TLS), templates and inline functions included, where they can be found without a word
// from the kernels. All fibers run on one CPU thread, so the block shares them. What else lies in
// that segment gets its value back after the launch.
#pragma once

#include <cstddef>

namespace mlpkern::fiber {

// Of one launch; `code` is an address in the module of its kernel.
class SharedMemory {
 public:
  SharedMemory(size_t dynamic_bytes, const void* code);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  void poison(bool positive);  // before a block
  bool guards_intact() const;  // after it: nothing was written around the dynamic part
  void* dynamic() const { return dynamic_; }

 private:
  unsigned char* memory_;
  unsigned char* dynamic_;  // 16-byte aligned and no better; its end is the end of what may be used
  size_t dynamic_bytes_;
  unsigned char* static_;
  unsigned char* kept_;  // the static segment as it was
  size_t static_bytes_;
};

}  // namespace mlpkern::fiber
