#include "fiber/builtins/matrix.h"

#include <cmath>
#include <cstring>

#include "fiber/builtins/narrow_float.h"
#include "fiber/builtins/warp.h"
#include "fiber/run/scheduler.h"

namespace mlpkern::fiber {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

struct Fragments {
  uint32_t a[4], b[2];
};

// For normal numbers, as all products of two floats are in double.
int exponent_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<int>(bits >> 52 & 0x7FF) - 1023;
}
double power_of_2(int exponent) {
  const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// c + sum of x[i] y[i], as one step of the tensor core. The inputs have few enough bits that
// their products are exact in double.
float dot_step(float c, const float* x, const float* y, int count) {
  double terms[9];
  terms[0] = c;
  double plain = c, largest = std::fabs(terms[0]);
  for (int i = 0; i < count; ++i) {
    terms[i + 1] = double{x[i]} * double{y[i]};
    plain += terms[i + 1];
    const double size = std::fabs(terms[i + 1]);
    if (size > largest) largest = size;
  }
  if (!std::isfinite(plain) || largest == 0) return static_cast<float>(plain);
  const int exponent = exponent_of(largest);  // largest < 2^(exponent + 1)
  const double steps = power_of_2(24 - exponent);
  int64_t whole = 0;
  for (int i = 0; i <= count; ++i) whole += static_cast<int64_t>(terms[i] * steps);
  const double sum = static_cast<double>(whole) * power_of_2(exponent - 24);
  const float nearest = static_cast<float>(sum);
  return std::fabs(double{nearest}) > std::fabs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
}

// Element (row, k) of A or (column, k) of B from the registers of the warp.
template <class Register>
float element(Operand type, const Gift* gifts, int outer, int k, const Register& of) {
  if (type == Operand::tf32) {
    const Fragments f = gifts[4 * (outer % 8) + k % 4].as<Fragments>();
    return float_of(of(f, outer / 8, k / 4) & 0xFFFFE000u);
  }
  const Fragments f = gifts[4 * (outer % 8) + k % 8 / 2].as<Fragments>();
  const uint32_t pair = of(f, outer / 8, k / 8);
  const auto bits = static_cast<uint16_t>(k % 2 ? pair >> 16 : pair);
  return type == Operand::bf16 ? bf16_to_float(bits) : f16_to_float(bits);
}

}  // namespace

void mma(Operand type, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site) {
  Fragments mine;
  std::memcpy(mine.a, a, sizeof a);
  std::memcpy(mine.b, b, sizeof b);
  const char* const what = type == Operand::tf32   ? "mma.tf32"
                           : type == Operand::bf16 ? "mma.bf16"
                                                   : "mma.f16";
  const Gift* const gifts = meet(kAllLanes, mine, what, site);
  const int g = static_cast<int>(thread_number() % 32 / 4),
            t = static_cast<int>(thread_number() % 4);
  const int depth = type == Operand::tf32 ? 8 : 16, step = depth / 2;
  float rows[2][16], columns[2][16];
  for (int half = 0; half < 2; ++half)
    for (int k = 0; k < depth; ++k) {
      rows[half][k] = element(type, gifts, g + 8 * half, k,
                              [](const Fragments& f, int i, int j) { return f.a[i + 2 * j]; });
      columns[half][k] = element(type, gifts, 2 * t + half, k,
                                 [](const Fragments& f, int, int j) { return f.b[j]; });
    }
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < depth; k += step)
      d[i] = dot_step(d[i], rows[i / 2] + k, columns[i % 2] + k, step);
}

void ldmatrix_x4(uint32_t (&r)[4], const void* row, bool transposed, Site site) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    refuse("%s:%d: ldmatrix of a row at %p, no multiple of 16 bytes", site.file, site.line, row);
  const Gift* const gifts = meet(kAllLanes, row, "ldmatrix", site);
  const int g = static_cast<int>(thread_number() % 32 / 4),
            t = static_cast<int>(thread_number() % 4);
  for (int i = 0; i < 4; ++i) {
    uint16_t pair[2];
    for (int j = 0; j < 2; ++j) {
      const int at_row = transposed ? 2 * t + j : g, at_column = transposed ? g : 2 * t + j;
      const auto* address = static_cast<const uint16_t*>(gifts[8 * i + at_row].as<const void*>());
      std::memcpy(&pair[j], address + at_column, sizeof pair[j]);
    }
    std::memcpy(&r[i], pair, sizeof pair);
  }
  // The instruction ends for all lanes at once, so no lane writes what another still reads.
  meet(kAllLanes, nullptr, 0, "ldmatrix", site);
}

}  // namespace mlpkern::fiber
