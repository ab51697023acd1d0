// What the tests of linear_tanh of csrc/cuda share: its arithmetics and their slack, shapes around
// the tiles, and matrices whose rows and bases are aligned only to their elements.
#pragma once

#include <iterator>
#include <string>
#include <vector>

#include "cuda/library.h"
#include "ops/sums.h"
#include "orders.h"
#include "testing.h"

namespace mlpkern::testing {

struct Math {
  DType dtype;
  bool tf32;
};
inline const Math kMaths[] = {{DType::f32, false},
                              {DType::f32, true},
                              {DType::bf16, false},
                              {DType::f16, false},
                              {DType::f64, false}};

// TF32 rounds each of two factors by up to 2^-11 of it; in units of float32's epsilon, 2^-23.
inline double rounding_of(const Math& math) { return math.tf32 ? 0x1p13 : 0; }
// tanh.approx serves bfloat16: 2^-11.
inline double tanh_slack(const Math& math) { return math.dtype == DType::bf16 ? 0x1p12 : 4; }

struct Shape {
  int64_t N, K, H;
};

// Empty in each size, one of each, the lecture's layer, primes, one past the tiles of 64 and the
// slabs of 32 and 64.
inline const Shape kShapes[] = {{0, 30, 200}, {5, 0, 7},     {5, 7, 0},     {1, 1, 1},
                                {2, 3, 5},    {32, 30, 200}, {7, 31, 17},   {33, 17, 65},
                                {64, 64, 64}, {131, 97, 37}, {65, 129, 66}, {257, 30, 27}};
inline const Shape kQuickShapes[] = {{5, 0, 7}, {33, 17, 65}, {131, 97, 37}};

inline std::vector<Shape> shapes() {
  if (quick()) return {std::begin(kQuickShapes), std::end(kQuickShapes)};
  return {std::begin(kShapes), std::end(kShapes)};
}

inline std::string label(const char* what, const Math& math, const Shape& s) {
  return format("%s %s%s N=%lld K=%lld H=%lld", what, name_of(math.dtype), math.tf32 ? " tf32" : "",
                static_cast<long long>(s.N), static_cast<long long>(s.K),
                static_cast<long long>(s.H));
}

// A matrix `past` elements past a multiple of 16 bytes, its rows `stride` apart.
struct Matrix {
  Matrix(DType dtype, int64_t rows, int64_t cols, int64_t pad, int64_t past)
      : stride(cols + pad),
        shift(past + 16 / static_cast<int64_t>(item_size(dtype)) - 1),  // Values begin one past it
        values(dtype, shift + rows * stride) {}

  void* data() {
    return static_cast<char*>(values.data()) +
           shift * static_cast<int64_t>(item_size(values.dtype));
  }
  std::vector<double> doubles() const {
    const std::vector<double> all = values.doubles();
    return {all.begin() + shift, all.end()};
  }

  // Compares all with `want`, which begins at data().
  void check(const char* what, const std::vector<Sum>& want, double extra_per_size, double extra) {
    for (int64_t i = 0; i < shift; ++i) values.set(i, 0);
    std::vector<Sum> all(shift);
    all.insert(all.end(), want.begin(), want.end());
    check_sums(what, values, all, extra_per_size, extra);
  }

  int64_t stride, shift;
  Values values;
};

}  // namespace mlpkern::testing
