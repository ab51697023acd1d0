// Loads and stores that convert between an element type and its accumulation type; maximum,
// reductions, and the reading of ids.
#pragma once

#include "cpu/vector/half.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

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

#if defined(__AVX512F__)
MLPKERN_INLINE uint32_t lane_mask(int64_t count) { return (1u << count) - 1; }
MLPKERN_INLINE vec_t<float> load_part(const float* p, int64_t count) {
  return (vec_t<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(lane_mask(count)), p);
}
MLPKERN_INLINE vec_t<double> load_part(const double* p, int64_t count) {
  return (vec_t<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(lane_mask(count)), p);
}
template <class H>
MLPKERN_INLINE vec_t<float> load_part(const H* p, int64_t count) {
  const auto bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(lane_mask(count)), p);
  return widen((halves_t)bits, static_cast<H*>(nullptr));
}
MLPKERN_INLINE void store_part(float* p, vec_t<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>(lane_mask(count)), (__m512)v);
}
MLPKERN_INLINE void store_part(double* p, vec_t<double> v, int64_t count) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(lane_mask(count)), (__m512d)v);
}
template <class H>
MLPKERN_INLINE void store_part(H* p, vec_t<float> v, int64_t count) {
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(lane_mask(count)), (__m256i)narrow(v, p));
}
#else
template <class T>
MLPKERN_INLINE vec_t<acc_t<T>> load_part(const T* p, int64_t count) {
  vec_t<acc_t<T>> v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = to_acc(p[i]);
  return v;
}
template <class T>
MLPKERN_INLINE void store_part(T* p, vec_t<acc_t<T>> v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store_scalar(p + i, v[i]);
}
#endif

// The first `lanes` lanes of v, `rest` in the others.
template <class A>
MLPKERN_INLINE vec_t<A> first_lanes(vec_t<A> v, int64_t lanes, A rest) {
  ints_t<A> index;
  for (int64_t i = 0; i < kLanes<A>; ++i) index[i] = i;
  return index < static_cast<std::remove_reference_t<decltype(index[0])>>(lanes) ? v : splat(rest);
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

// ---- maximum and reductions ----

// The larger (smaller) of each lane; where either is NaN, the lane of b.
template <class V>
MLPKERN_INLINE V maximum(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4)
    return (V)_mm512_max_ps((__m512)a, (__m512)b);
  else
    return (V)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(__AVX2__)
  if constexpr (sizeof(a[0]) == 4)
    return (V)_mm256_max_ps((__m256)a, (__m256)b);
  else
    return (V)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
  return a > b ? a : b;
#endif
}

MLPKERN_INLINE vec_t<float> minimum(vec_t<float> a, vec_t<float> b) {
#if defined(__AVX512F__)
  return (vec_t<float>)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (vec_t<float>)_mm256_min_ps((__m256)a, (__m256)b);
#else
  return a < b ? a : b;
#endif
}

template <class A>
MLPKERN_INLINE A reduce_max(vec_t<A> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return _mm512_reduce_max_ps((__m512)v);
  else
    return _mm512_reduce_max_pd((__m512d)v);
#else
  A result = v[0];
  for (int64_t i = 1; i < kLanes<A>; ++i) result = result > v[i] ? result : v[i];
  return result;
#endif
}

template <class A>
MLPKERN_INLINE A reduce_add(vec_t<A> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(A) == 4)
    return _mm512_reduce_add_ps((__m512)v);
  else
    return _mm512_reduce_add_pd((__m512d)v);
#else
  for (int64_t width = kLanes<A> / 2; width > 0; width /= 2)
    for (int64_t i = 0; i < width; ++i) v[i] += v[i + width];
  return v[0];
#endif
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
