// As long as an object lives, its thread treats subnormal floats as zero, as operands and results.
//
// Subnormals (below 1.2e-38) cost about 150 cycles an operation on x86, and a confident softmax
// makes them by the thousand: exp(-90), or the gradient of a class of probability 1e-38. Such a
// value does not change a parameter of ordinary size to which it is added. The destructor restores
// the caller's mode.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mlpkern::cpu {

class FlushDenormals {
#if defined(__x86_64__)
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // FTZ and DAZ
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" ::"r"(saved_ | (1ull << 24)));  // FZ
  }
  ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  unsigned long long saved_;
#else
 public:
  FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace mlpkern::cpu
