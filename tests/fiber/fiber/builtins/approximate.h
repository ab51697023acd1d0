// Approximate instructions: the exact value, off by up to the error that the PTX manual allows, by
// an amount that depends only on the operand. So a kernel is tested with the worst results that a
// GPU may return, and still gives the same bits every time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace mlpkern::fiber {

// In [-1, 1], from the bits of the operand.
inline double wobble(float operand) {
  uint32_t bits;
  std::memcpy(&bits, &operand, sizeof bits);
  bits = (bits ^ (bits >> 16)) * 0x45D9F3Bu;
  bits = (bits ^ (bits >> 16)) * 0x45D9F3Bu;
  bits ^= bits >> 16;
  return static_cast<int32_t>(bits) * 0x1p-31;
}

// Zeros, infinities, NaN and powers of two come out exactly, as they do on every GPU.
inline float approximate(double exact, double relative_error, float operand) {
  int exponent;
  if (!std::isfinite(exact) || std::fabs(std::frexp(exact, &exponent)) == 0.5 || exact == 0)
    return static_cast<float>(exact);
  return static_cast<float>(exact * (1 + relative_error * wobble(operand)));
}

inline float flush(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

// ex2.approx.ftz.f32: 2^-22
inline float ex2_approx(float x) {
  return flush(approximate(std::exp2(double{flush(x)}), 0x1p-22, x));
}

// rcp.approx.ftz.f32: 1 unit in the last place, 2^-23
inline float rcp_approx(float x) { return flush(approximate(1 / double{flush(x)}, 0x1p-23, x)); }

// tanh.approx.f32: 2^-11
inline float tanh_approx(float x) {
  const float y = approximate(std::tanh(double{x}), 0x1p-11, x);
  return std::fabs(y) > 1 ? std::copysign(1.0f, y) : y;
}

// lg2.approx.ftz.f32: 2^-22 relative, but near 1, where the result is small, 2^-22 absolute
inline float lg2_approx(float x) {
  const double exact = std::log2(double{flush(x)});
  if (x > 0.5f && x < 2 && x != 1) return static_cast<float>(exact + 0x1p-22 * wobble(x));
  return approximate(exact, 0x1p-22, x);
}

}  // namespace mlpkern::fiber
