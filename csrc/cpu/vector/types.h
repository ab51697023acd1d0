// Vectors of the instruction set that this file is compiled for.
//
// GCC/Clang vector extensions carry the arithmetic, so one source serves every instruction set;
// intrinsics stand only where the extensions have no operator (masks, maximum, half precision),
// most of them in isa/. Everything is in an anonymous namespace: an object compiled for AVX-512
// must not export an inline function that the linker could keep for a CPU without it.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"

#ifndef MLPKERN_ISA
#error "compile with -DMLPKERN_ISA=<namespace of the instruction set>"
#endif

#define MLPKERN_INLINE inline __attribute__((always_inline))

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

// clang-format off
template <class T> struct AccOf { using type = float; };
template <> struct AccOf<double> { using type = double; };
template <class T> using acc_t = typename AccOf<T>::type;

template <class A> struct VecOf;
template <> struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef int32_t ints __attribute__((vector_size(kVectorBytes)));
};
template <> struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef int64_t ints __attribute__((vector_size(kVectorBytes)));
};
// clang-format on
template <class A>
using vec_t = typename VecOf<A>::type;
template <class A>
using ints_t = typename VecOf<A>::ints;
template <class A>
constexpr int64_t kLanes = kVectorBytes / sizeof(A);

typedef uint32_t words_t __attribute__((vector_size(kVectorBytes)));
typedef uint16_t halves_t __attribute__((vector_size(kVectorBytes / 2)));

template <class A>
MLPKERN_INLINE vec_t<A> splat(A value) {
  return value - vec_t<A>{};  // broadcast; keeps -0.0 and NaN
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
