// The rate of fused multiply-adds of one core, the limit of every product: independent ones on
// registers alone.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx2 -march=haswell -c csrc/cpu/fma_peak.cpp
#include <chrono>

#include "cpu/dispatch.h"
#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {

double fma_peak(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int kSums = 10, kRounds = 4000;  // sums enough for latency times throughput
  const auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const vec_t<float> factor = splat(0.999f), term = splat(0.001f);
  // variables of their own, since an array would stay in memory
  vec_t<float> s0 = term, s1 = term, s2 = term, s3 = term, s4 = term;
  vec_t<float> s5 = term, s6 = term, s7 = term, s8 = term, s9 = term;
  const auto add = [&](vec_t<float>& sum) __attribute__((always_inline)) {
    sum = sum * factor + term;
#if defined(__x86_64__)
    __asm__ volatile("" : "+x"(sum));  // the compiler must neither merge nor drop terms
#elif defined(__aarch64__)
    __asm__ volatile("" : "+w"(sum));
#endif
  };
  double best = 0;
  const Clock::time_point begin = Clock::now();
  do {
    const Clock::time_point round = Clock::now();
    for (int i = 0; i < kRounds; ++i) {
      add(s0), add(s1), add(s2), add(s3), add(s4);
      add(s5), add(s6), add(s7), add(s8), add(s9);
    }
    const double rate = 2.0 * kSums * kRounds * kLanes<float> / since(round);
    best = rate > best ? rate : best;
  } while (since(begin) < seconds);
  return best;
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
