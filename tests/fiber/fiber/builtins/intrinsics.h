// The built-in functions of device code for threads and memory: barriers, exchanges within a warp,
// atomics, loads and stores with a cache hint.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "fiber/builtins/warp.h"
#include "fiber/run/mutation.h"
#include "fiber/run/scheduler.h"

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

// The value of lane `source` of this lane's group of `width`; its own value if that is outside.
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

// The lanes of `mask` with the same bits as this one.
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

// --- Atomics -------------------------------------------------------------------------------------
// Plain operations, as fibers switch only where they wait. Only for integers: with floating point
// the result would depend on the order of threads.
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

// --- Loads and stores with a cache hint ----------------------------------------------------------
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
