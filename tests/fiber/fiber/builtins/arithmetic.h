// The built-in functions of device code on bits and numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "fiber/builtins/approximate.h"

// --- Bits ----------------------------------------------------------------------------------------
#define MLPKERN_BITS(name, To, From)           \
  inline To name(From from) {                  \
    static_assert(sizeof(To) == sizeof(From)); \
    To to;                                     \
    std::memcpy(&to, &from, sizeof to);        \
    return to;                                 \
  }
MLPKERN_BITS(__float_as_uint, unsigned, float)
MLPKERN_BITS(__float_as_int, int, float)
MLPKERN_BITS(__uint_as_float, float, unsigned)
MLPKERN_BITS(__int_as_float, float, int)
MLPKERN_BITS(__double_as_longlong, long long, double)
MLPKERN_BITS(__longlong_as_double, double, long long)
#undef MLPKERN_BITS

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
}

// --- Numbers -------------------------------------------------------------------------------------
template <class A, class B,
          class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>)
    return std::fmin(T(a), T(b));
  else
    return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B,
          class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>
std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>)
    return std::fmax(T(a), T(b));
  else
    return T(a) < T(b) ? T(b) : T(a);
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

inline float rsqrtf(float x) {
  return mlpkern::fiber::approximate(1 / std::sqrt(double{x}), 0x1p-22, x);
}
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float __fdividef(float a, float b) {
  return mlpkern::fiber::approximate(double{a} / double{b}, 0x1p-22, a);
}
inline float __expf(float x) { return mlpkern::fiber::ex2_approx(x * 1.4426950408889634f); }
inline float __exp2f(float x) { return mlpkern::fiber::ex2_approx(x); }
inline float __logf(float x) { return mlpkern::fiber::lg2_approx(x) * 0.69314718055994531f; }
inline float __log2f(float x) { return mlpkern::fiber::lg2_approx(x); }
