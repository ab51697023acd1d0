// NEON of aarch64: 32 registers of 16 bytes. Every ARMv8 has FMA and the conversions of float16;
// the rounding to bfloat16 is an instruction where the compiler may use it (-mcpu=native).
//
// A tile of gemm.h is 12 rows by 2 vectors: 24 accumulators, 2 columns, a broadcast. Its loop takes
// for a term, compiled by GCC 12 and Clang 14,
//   24 fmla, 1 ldp of the columns, 12 ldr of the rows, 1 prefetch, 5 to 8 others: 43 to 46,
// since fmla takes one factor as a lane of a register: a row costs a scalar load, no ld1r, which
// occupies a pipe of the FMAs. By the manuals of the cores:
//   Neoverse N1 (2 FMA pipes, 2 load pipes, 4 wide)          12 cycles of FMA, 7 of loads
//   Neoverse V1, V2 (4 FMA pipes, 3 load pipes, 8 wide)      6 cycles of FMA, 5 of loads
//   Apple M1 and later (4 FMA pipes, 3 load pipes, 8 wide)   6 cycles of FMA, 5 of loads
// so the FMAs are the limit, and in instructions the wide cores are just full. A load of four terms
// of a row would serve 8 fmla by its lanes and free a quarter of the instructions, but needs a
// register for each row: 8 rows by 2 vectors, or less.
#pragma once

#include <arm_neon.h>

#include "cpu/vector/types.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int kTileRows = 12;  // of a tile of gemm.h

// ---- halves ----

// The upper 16 bits of each lane.
MLPKERN_INLINE halves_t upper_halves(words_t words) {
  return (halves_t)vshrn_n_u32((uint32x4_t)words, 16);
}

MLPKERN_INLINE vec_t<float> widen(halves_t bits, f16*) {
  return (vec_t<float>)vcvt_f32_f16((float16x4_t)bits);
}
MLPKERN_INLINE halves_t narrow(vec_t<float> value, f16*) {
  return (halves_t)vcvt_f16_f32((float32x4_t)value);
}

// ---- the first `count` lanes ----

MLPKERN_INLINE vec_t<float> load_lanes(const float* p, int64_t count) {
  if (count & 4) return (vec_t<float>)vld1q_f32(p);
  float32x2_t low = vdup_n_f32(0), high = low;
  if (count & 2) {
    low = vld1_f32(p);
    if (count & 1) high = vld1_lane_f32(p + 2, high, 0);
  } else if (count & 1) {
    low = vld1_lane_f32(p, low, 0);
  }
  return (vec_t<float>)vcombine_f32(low, high);
}
MLPKERN_INLINE vec_t<double> load_lanes(const double* p, int64_t count) {
  if (count & 2) return (vec_t<double>)vld1q_f64(p);
  const float64x1_t zero = vdup_n_f64(0);
  return (vec_t<double>)vcombine_f64(count & 1 ? vld1_f64(p) : zero, zero);
}
MLPKERN_INLINE halves_t load_lanes(const uint16_t* p, int64_t count) {
  uint64_t words = 0;
  if (count & 4) {
    __builtin_memcpy(&words, p, 8);
  } else {
    if (count & 2) __builtin_memcpy(&words, p, 4);  // the lowest half first: little endian
    if (count & 1) words |= uint64_t{p[count & 2]} << (count & 2 ? 32 : 0);
  }
  return (halves_t)vcreate_u16(words);
}

MLPKERN_INLINE void store_lanes(float* p, vec_t<float> v, int64_t count) {
  if (count & 4) return vst1q_f32(p, (float32x4_t)v);
  float32x2_t part = vget_low_f32((float32x4_t)v);
  if (count & 2) {
    vst1_f32(p, part);
    part = vget_high_f32((float32x4_t)v);
    p += 2;
  }
  if (count & 1) vst1_lane_f32(p, part, 0);
}
MLPKERN_INLINE void store_lanes(double* p, vec_t<double> v, int64_t count) {
  if (count & 2) return vst1q_f64(p, (float64x2_t)v);
  if (count & 1) vst1q_lane_f64(p, (float64x2_t)v, 0);
}
MLPKERN_INLINE void store_lanes(uint16_t* p, halves_t v, int64_t count) {
  uint16x4_t part = (uint16x4_t)v;
  if (count & 4) return vst1_u16(p, part);
  if (count & 2) {
    const uint32_t pair = vget_lane_u32(vreinterpret_u32_u16(part), 0);
    __builtin_memcpy(p, &pair, 4);
    part = vext_u16(part, part, 2);
    p += 2;
  }
  if (count & 1) vst1_lane_u16(p, part, 0);
}

// ---- maximum, reductions, square root ----

// Not fmax, which is NaN where a is: the lane of b where either is NaN. All callers of minimum pass
// a number as a, so that fmin is the same.
template <class V>
MLPKERN_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}
MLPKERN_INLINE vec_t<float> minimum(vec_t<float> a, vec_t<float> b) {
  return (vec_t<float>)vminq_f32((float32x4_t)a, (float32x4_t)b);
}
MLPKERN_INLINE float reduce_max(vec_t<float> v) { return vmaxvq_f32((float32x4_t)v); }
MLPKERN_INLINE double reduce_max(vec_t<double> v) { return vmaxvq_f64((float64x2_t)v); }
MLPKERN_INLINE float reduce_add(vec_t<float> v) { return vaddvq_f32((float32x4_t)v); }
MLPKERN_INLINE double reduce_add(vec_t<double> v) { return vaddvq_f64((float64x2_t)v); }
MLPKERN_INLINE vec_t<float> square_root(vec_t<float> x) {
  return (vec_t<float>)vsqrtq_f32((float32x4_t)x);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
