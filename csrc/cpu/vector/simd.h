// Loads and stores that convert between an element type and its accumulation type, and the reading
// of ids. What an instruction set does in its own way is in isa/.
#pragma once

#if defined(__AVX512F__)
#include "cpu/vector/isa/avx512.h"
#elif defined(__AVX2__)
#include "cpu/vector/isa/avx2.h"
#elif defined(__aarch64__)
#include "cpu/vector/isa/neon.h"
#else
#include "cpu/vector/isa/portable.h"
#endif

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// ---- bfloat16, rounded to nearest even ----

MLPKERN_INLINE vec_t<float> widen(halves_t bits, bf16*) {
#if defined(__aarch64__)  // for the other line GCC 12 goes through scalar registers
  return (vec_t<float>)(vmovl_u16((uint16x4_t)bits) << 16);
#else
  return (vec_t<float>)(__builtin_convertvector(bits, words_t) << 16);
#endif
}

MLPKERN_INLINE halves_t narrow(vec_t<float> value, bf16*) {
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  return (halves_t)vcvt_bf16_f32((float32x4_t)value);
#else
  const words_t bits = (words_t)value;
  const words_t rounded = bits + 0x7fff + ((bits >> 16) & 1), quiet_nan = bits | 0x400000;
  return upper_halves(value == value ? rounded : quiet_nan);
#endif
}

// ---- scalars ----

MLPKERN_INLINE float to_acc(float x) { return x; }
MLPKERN_INLINE double to_acc(double x) { return x; }
template <class H>
MLPKERN_INLINE float half_to_acc(H x) {
  const halves_t bits = {x.bits};
  return widen(bits, static_cast<H*>(nullptr))[0];
}
MLPKERN_INLINE float to_acc(bf16 x) { return half_to_acc(x); }
MLPKERN_INLINE float to_acc(f16 x) { return half_to_acc(x); }

MLPKERN_INLINE void store_scalar(float* p, float x) { *p = x; }
MLPKERN_INLINE void store_scalar(double* p, double x) { *p = x; }
template <class H>
MLPKERN_INLINE void store_scalar(H* p, float x) {
  const vec_t<float> value = {x};
  p->bits = narrow(value, p)[0];
}

// ---- whole vectors, any alignment ----

template <class V>
MLPKERN_INLINE V load_raw(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
MLPKERN_INLINE void store_raw(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

MLPKERN_INLINE vec_t<float> load(const float* p) { return load_raw<vec_t<float>>(p); }
MLPKERN_INLINE vec_t<double> load(const double* p) { return load_raw<vec_t<double>>(p); }
MLPKERN_INLINE vec_t<float> load(const bf16* p) {
  return widen(load_raw<halves_t>(p), static_cast<bf16*>(nullptr));
}
MLPKERN_INLINE vec_t<float> load(const f16* p) {
  return widen(load_raw<halves_t>(p), static_cast<f16*>(nullptr));
}

MLPKERN_INLINE void store(float* p, vec_t<float> v) { store_raw(p, v); }
MLPKERN_INLINE void store(double* p, vec_t<double> v) { store_raw(p, v); }
MLPKERN_INLINE void store(bf16* p, vec_t<float> v) { store_raw(p, narrow(v, p)); }
MLPKERN_INLINE void store(f16* p, vec_t<float> v) { store_raw(p, narrow(v, p)); }

// ---- the first `count` lanes, 0 <= count <= lanes; the others are zero, or not written ----

MLPKERN_INLINE vec_t<float> load_part(const float* p, int64_t count) {
  return load_lanes(p, count);
}
MLPKERN_INLINE vec_t<double> load_part(const double* p, int64_t count) {
  return load_lanes(p, count);
}
template <class H>
MLPKERN_INLINE vec_t<float> load_part(const H* p, int64_t count) {
  return widen(load_lanes(&p->bits, count), static_cast<H*>(nullptr));
}
MLPKERN_INLINE void store_part(float* p, vec_t<float> v, int64_t count) {
  store_lanes(p, v, count);
}
MLPKERN_INLINE void store_part(double* p, vec_t<double> v, int64_t count) {
  store_lanes(p, v, count);
}
template <class H>
MLPKERN_INLINE void store_part(H* p, vec_t<float> v, int64_t count) {
  store_lanes(&p->bits, narrow(v, p), count);
}

// All bits set in the first `lanes` lanes.
template <class A>
MLPKERN_INLINE ints_t<A> lanes_before(int64_t lanes) {
  ints_t<A> index;
  for (int64_t i = 0; i < kLanes<A>; ++i) index[i] = i;
  return index < static_cast<std::remove_reference_t<decltype(index[0])>>(lanes);
}

// The first `lanes` lanes of v, `rest` in the others.
template <class A>
MLPKERN_INLINE vec_t<A> first_lanes(vec_t<A> v, int64_t lanes, A rest) {
  return lanes_before<A>(lanes) ? v : splat(rest);
}

// The last `lanes` lanes of v, zero in the others.
template <class A>
MLPKERN_INLINE vec_t<A> last_lanes(vec_t<A> v, int64_t lanes) {
  return lanes_before<A>(kLanes<A> - lanes) ? vec_t<A>{} : v;
}

// The first `count` lanes of p, `rest` in the others.
template <class T>
MLPKERN_INLINE vec_t<acc_t<T>> load_part_or(const T* p, int64_t count, acc_t<T> rest) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (vec_t<acc_t<T>>)_mm512_mask_loadu_ps((__m512)splat(rest),
                                                 static_cast<__mmask16>(lane_mask(count)), p);
#endif
  return first_lanes<acc_t<T>>(load_part(p, count), count, rest);
}

// ---- ids ----

MLPKERN_INLINE int64_t read_index(IndexType type, const void* p, int64_t i) {
  switch (type) {
    case IndexType::u8:
      return static_cast<const uint8_t*>(p)[i];
    case IndexType::i16:
      return static_cast<const int16_t*>(p)[i];
    case IndexType::i32:
      return static_cast<const int32_t*>(p)[i];
    default:
      return static_cast<const int64_t*>(p)[i];
  }
}

MLPKERN_INLINE bool in_range(int64_t index, int64_t count) {
  return static_cast<uint64_t>(index) < static_cast<uint64_t>(count);
}

// Calls body with a null pointer to the element type of dtype.
template <class Body>
MLPKERN_INLINE int64_t for_dtype(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body(static_cast<float*>(nullptr));
    case DType::f64:
      return body(static_cast<double*>(nullptr));
    case DType::bf16:
      return body(static_cast<bf16*>(nullptr));
    default:
      return body(static_cast<f16*>(nullptr));
  }
}

MLPKERN_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
MLPKERN_INLINE int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
