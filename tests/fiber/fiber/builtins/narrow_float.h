// Conversions between float32 and the 16-bit formats, to nearest even, on the bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace mlpkern::fiber {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float bf16_to_float(uint16_t bits) { return float_of(uint32_t{bits} << 16); }

inline uint16_t bf16_from_float(float x) {
  const uint32_t bits = bits_of(x);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;  // the NaN that CUDA returns
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline float f16_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16, exponent = bits >> 10 & 0x1F;
  const uint32_t mantissa = bits & 0x3FF;
  if (exponent == 0x1F) return float_of(sign | 0x7F800000 | mantissa << 13);
  if (exponent) return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
  const float size = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -size : size;
}

inline uint16_t f16_from_float(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
  if (size > 0x7F800000) return 0x7FFF;
  if (size >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // from 65520 on
  if (size < 0x38800000) {
    // Below 2^-14 the steps are 2^-24 apart: adding 1/2 makes the hardware round to them.
    const uint32_t rounded = bits_of(float_of(size) + 0.5f) - 0x3F000000;
    return static_cast<uint16_t>(sign | rounded);
  }
  // A carry out of the mantissa moves into the exponent by itself.
  return static_cast<uint16_t>(sign | (size - (112u << 23) + 0xFFF + (size >> 13 & 1)) >> 13);
}

}  // namespace mlpkern::fiber
