// Sums of products in long double with their rounding error bounds, for the tests of products.
#pragma once

#include <cmath>
#include <vector>

#include "testing.h"

namespace mlpkern::testing {

// The reference of one element: the sum of products, the sum of their magnitudes, and their number.
struct Sum {
  long double value = 0, size = 0;
  int64_t terms = 0;

  void add(long double term) { add(term, std::fabs(term)); }
  void add(long double term, long double term_size) {
    value += term;
    size += term_size;
    ++terms;
  }
};

// The rounding error of a sum is the sum of those of its additions, which partly cancel, so the
// square root of their number is ample. `extra` is in units of the accumulator's epsilon.
inline void check_sums(const char* what, const Values& got, const std::vector<Sum>& want,
                       double extra_per_size, double extra) {
  const double eps = epsilon_of(accumulator_of(got.dtype));
  for (int64_t i = 0; i < got.count; ++i) {
    const Sum& sum = want[i];
    const double slack =
        epsilon_of(got.dtype) * static_cast<double>(std::fabs(sum.value)) +
        eps * ((std::sqrt(sum.terms + 1.0) + extra_per_size) * static_cast<double>(sum.size) +
               extra) +
        (got.dtype == DType::f16 ? 0x1p-24 : 0);  // float16 underflows early
    CHECK(std::fabs(static_cast<double>(got.get(i) - sum.value)) <= slack,
          "%s[%lld] got %.9g, want %.9Lg, slack %g", what, static_cast<long long>(i), got.get(i),
          sum.value, slack);
  }
}

}  // namespace mlpkern::testing
