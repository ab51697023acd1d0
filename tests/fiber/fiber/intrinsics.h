// The built-in functions of device code: barriers, exchanges within a warp, atomics, loads with a
// cache hint, bits and numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "fiber/approximate.h"
#include "fiber/mutation.h"
#include "fiber/scheduler.h"
#include "fiber/warp.h"

// --- Barriers ------------------------------------------------------------------------------------
using mlpkern::fiber::Site;

inline void __syncthreads(Site site = Site::here()) {
  if (!mlpkern::fiber::leaves_out(site)) mlpkern::fiber::block_barrier("__syncthreads", site);
}
inline int __syncthreads_count(int predicate, Site site = Site::here()) {
  return mlpkern::fiber::block_barrier("__syncthreads_count", site, predicate != 0);
}
inline int __syncthreads_or(int predicate, Site site = Site::here()) {
  return mlpkern::fiber::block_barrier("__syncthreads_or", site, predicate != 0) > 0;
}
inline int __syncthreads_and(int predicate, Site site = Site::here()) {
  return mlpkern::fiber::block_barrier("__syncthreads_and", site, predicate == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, Site site = Site::here()) {
  if (!mlpkern::fiber::leaves_out(site)) mlpkern::fiber::meet(mask, nullptr, 0, "__syncwarp", site);
}
inline void __threadfence() {}  // one CPU thread sees its own stores
inline void __threadfence_block() {}

// --- Exchanges within a warp ---------------------------------------------------------------------
namespace mlpkern::fiber {

inline unsigned lane() { return thread_number() % 32; }

// What lane `source` of this lane's group of `width` gave; its own where that is outside.
template <class T>
T shuffle(unsigned mask, T value, int source, bool inside, const char* what, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8 || std::is_class_v<T> || sizeof(T) == 2);
  const Gift* const gifts = meet(mask, value, what, site);
  if (!inside) return value;
  if (!(mask >> source & 1))
    refuse("%s:%d: %s reads lane %d, which is not among the lanes %08x", site.file, site.line, what,
           source, mask);
  return gifts[source].as<T>();
}

inline unsigned votes(unsigned mask, bool predicate, const char* what, Site site) {
  const Gift* const gifts = meet(mask, predicate, what, site);
  unsigned result = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1 && gifts[i].as<bool>()) result |= 1u << i;
  return result;
}

}  // namespace mlpkern::fiber

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, Site site = Site::here()) {
  const int lane = static_cast<int>(mlpkern::fiber::lane());
  const int base = lane / width * width;
  return mlpkern::fiber::shuffle(mask, value, base + (source & (width - 1)), true, "__shfl_sync",
                                 site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, Site site = Site::here()) {
  const int lane = static_cast<int>(mlpkern::fiber::lane()), base = lane / width * width;
  const int source = lane - static_cast<int>(delta);
  return mlpkern::fiber::shuffle(mask, value, source, source >= base, "__shfl_up_sync", site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   Site site = Site::here()) {
  const int lane = static_cast<int>(mlpkern::fiber::lane()), base = lane / width * width;
  const int source = lane + static_cast<int>(delta);
  return mlpkern::fiber::shuffle(mask, value, source, source < base + width, "__shfl_down_sync",
                                 site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, Site site = Site::here()) {
  const int lane = static_cast<int>(mlpkern::fiber::lane()), base = lane / width * width;
  const int source = lane ^ bits;
  return mlpkern::fiber::shuffle(mask, value, source, source < base + width, "__shfl_xor_sync",
                                 site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, Site site = Site::here()) {
  return mlpkern::fiber::votes(mask, predicate != 0, "__ballot_sync", site);
}
inline int __any_sync(unsigned mask, int predicate, Site site = Site::here()) {
  return mlpkern::fiber::votes(mask, predicate != 0, "__any_sync", site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, Site site = Site::here()) {
  return mlpkern::fiber::votes(mask, predicate != 0, "__all_sync", site) == mask;
}

// The lanes of `mask` that gave the same bits as this one.
template <class T>
unsigned __match_any_sync(unsigned mask, T value, Site site = Site::here()) {
  const mlpkern::fiber::Gift* const gifts =
      mlpkern::fiber::meet(mask, value, "__match_any_sync", site);
  unsigned result = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1 && std::memcmp(gifts[i].bytes, &value, sizeof value) == 0) result |= 1u << i;
  return result;
}

template <class T>
T __reduce_add_sync(unsigned mask, T value, Site site = Site::here()) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  const mlpkern::fiber::Gift* const gifts =
      mlpkern::fiber::meet(mask, value, "__reduce_add_sync", site);
  unsigned sum = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) sum += static_cast<unsigned>(gifts[i].as<T>());
  return static_cast<T>(sum);
}

// --- Atomics: plain, as fibers change only where they wait. On integers alone: those on floating
// point would make results depend on the order of threads.
// -----------------------------------------
#define MLPKERN_ATOMIC(name, change)                                            \
  template <class T, class U>                                                   \
  T name(T* address, U operand) {                                               \
    static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8)); \
    const T old = *address, value = static_cast<T>(operand);                    \
    *address = static_cast<T>(change);                                          \
    return old;                                                                 \
  }
MLPKERN_ATOMIC(atomicAdd, static_cast<std::make_unsigned_t<T>>(old) + value)
MLPKERN_ATOMIC(atomicSub, static_cast<std::make_unsigned_t<T>>(old) - value)
MLPKERN_ATOMIC(atomicMax, old > value ? old : value)
MLPKERN_ATOMIC(atomicMin, old < value ? old : value)
MLPKERN_ATOMIC(atomicAnd, old& value)
MLPKERN_ATOMIC(atomicOr, old | value)
MLPKERN_ATOMIC(atomicXor, old ^ value)
MLPKERN_ATOMIC(atomicExch, value)
#undef MLPKERN_ATOMIC

template <class T, class U, class V>
T atomicCAS(T* address, U compare, V value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 2);
  const T old = *address;
  if (old == static_cast<T>(compare)) *address = static_cast<T>(value);
  return old;
}

// --- Loads and stores with a cache hint
// ------------------------------------------------------------
namespace mlpkern::fiber {
template <class T>
void check_aligned(const T* address, Site site) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0)
    refuse("%s:%d: access to %zu bytes at %p, no multiple of its size", site.file, site.line,
           sizeof(T), static_cast<const void*>(address));
}
}  // namespace mlpkern::fiber

#define MLPKERN_LOAD(name)                             \
  template <class T>                                   \
  T name(const T* address, Site site = Site::here()) { \
    mlpkern::fiber::check_aligned(address, site);      \
    return *address;                                   \
  }
MLPKERN_LOAD(__ldg)
MLPKERN_LOAD(__ldcg)
MLPKERN_LOAD(__ldca)
MLPKERN_LOAD(__ldcs)
MLPKERN_LOAD(__ldlu)
#undef MLPKERN_LOAD

#define MLPKERN_STORE(name)                                  \
  template <class T>                                         \
  void name(T* address, T value, Site site = Site::here()) { \
    mlpkern::fiber::check_aligned(address, site);            \
    *address = value;                                        \
  }
MLPKERN_STORE(__stwb)
MLPKERN_STORE(__stcg)
MLPKERN_STORE(__stcs)
MLPKERN_STORE(__stwt)
#undef MLPKERN_STORE

// --- Bits
// ------------------------------------------------------------------------------------------
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

// --- Numbers
// ---------------------------------------------------------------------------------------
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
