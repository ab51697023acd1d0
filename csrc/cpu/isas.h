// Which instruction sets this CPU runs: asked by dispatch.cpp at run time, and by CMakeLists.txt
// for a build of "native".
#pragma once

#include <cstring>

namespace mlpkern::cpu {

inline bool runs_here(const char* isa) {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (!std::strcmp(isa, "avx512"))
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("fma");
  if (!std::strcmp(isa, "avx2"))
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef __aarch64__
  if (!std::strcmp(isa, "neon")) return true;
#endif
  return !std::strcmp(isa, "baseline");
}

}  // namespace mlpkern::cpu
