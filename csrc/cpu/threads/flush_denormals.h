// While one lives, the thread treats subnormal floats as zero, in and out.
//
// Subnormals (below 1.2e-38) cost about 150 cycles an operation on x86, and a confident softmax
// makes them by the thousand: exp(-90), or the gradient of a class of probability 1e-38. Their
// value cannot matter to a gradient that is added to parameters of ordinary size. The caller's mode
// is put back at the end.
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
