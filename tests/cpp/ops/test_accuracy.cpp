// The vector exp, log and tanh of every instruction set, in units in the last place, through the
// launchers: tanh is linear_tanh with one weight of 1; exp and log are the log-sum-exp of two
// classes.
#include <cmath>

#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

constexpr double kTanhUlps = 1.7, kExpUlps = 2.0, kLogUlps = 1.5;  // measured: 1.0 – 1.5; 1.3; 1.0

double ulps(double value, double exact) {
  const float rounded = static_cast<float>(std::fabs(exact));
  const double unit = std::nextafter(rounded, INFINITY) - static_cast<double>(rounded);
  return std::fabs(value - exact) / unit;
}

}  // namespace

TEST_CASE(tanh_over_its_range) {
  std::vector<float> x;
  for (double v = 1e-30; v < 12; v *= sampled() ? 1.0003 : 1.00003) {
    x.push_back(static_cast<float>(v));
    x.push_back(static_cast<float>(-v));
  }
  for_each_isa("tanh", [&] {
    const float one = 1;
    std::vector<float> y(x.size());
    LinearTanhForward a{};
    a.dtype = DType::f32;
    a.N = static_cast<int64_t>(x.size());
    a.K = a.H = 1;
    a.input = x.data();
    a.input_row_stride = a.weight_row_stride = 1;
    a.weight = &one;
    a.output = y.data();
    Buffer scratch(cpu::linear_tanh_forward_workspace(a) + 64);
    a.workspace = scratch.data();
    cpu::linear_tanh_forward(a);
    double worst = 0, where = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double error = ulps(y[i], std::tanh(static_cast<double>(x[i])));
      if (error > worst) worst = error, where = x[i];
    }
    CHECK(worst <= kTanhUlps, "%.3f ulp at %g", worst, where);
  });
}

TEST_CASE(log_sum_exp_of_two_classes) {
  std::vector<float> logits;  // (0, -d): maximum 0, log(1 + e^-d)
  for (double d = 0; d < 80; d += 0.003) {
    logits.push_back(0);
    logits.push_back(static_cast<float>(-d));
  }
  const int64_t rows = static_cast<int64_t>(logits.size()) / 2;
  const std::vector<uint8_t> target(static_cast<size_t>(rows), 0);
  for_each_isa("log-sum-exp", [&] {
    std::vector<float> loss(static_cast<size_t>(rows)), lse(2 * loss.size()), total(1);
    CrossEntropyForward a{};
    a.dtype = DType::f32;
    a.index_type = IndexType::u8;
    a.N = rows;
    a.C = a.input_row_stride = 2;
    a.input = logits.data();
    a.target = target.data();
    a.target_row_stride = 1;
    a.ignore_index = -100;
    a.reduction = Reduction::none;
    a.loss = loss.data();
    a.lse = lse.data();
    a.total_weight = total.data();
    Buffer scratch(cpu::cross_entropy_forward_workspace(a) + 64);
    a.workspace = scratch.data();
    CHECK(cpu::cross_entropy_forward(a) == -1, "a target was refused");

    std::vector<float> dinput(logits.size()), upstream(loss.size(), 1.0f);
    CrossEntropyBackward b{};
    b.dtype = a.dtype;
    b.index_type = a.index_type;
    b.N = a.N;
    b.C = b.input_row_stride = 2;
    b.input = a.input;
    b.target = a.target;
    b.target_row_stride = 1;
    b.ignore_index = a.ignore_index;
    b.reduction = a.reduction;
    b.dloss = upstream.data();
    b.dloss_stride = 1;
    b.lse = a.lse;
    b.total_weight = a.total_weight;
    b.dinput = dinput.data();
    CHECK(cpu::cross_entropy_backward(b) == -1, "a target was refused");

    for (int64_t n = 0; n < rows; ++n) {
      const double d = logits[static_cast<size_t>(2 * n + 1)], sum = 1 + std::exp(d);
      // The sum 1 + e^-d is rounded to float32 before its logarithm: half a unit of a number
      // near 1.
      const double log_error = std::fabs(lse[static_cast<size_t>(rows + n)] - std::log(sum));
      CHECK(log_error <= 0x1p-23 * (0.5 + kLogUlps * std::log(2.0)), "log %.3g at %g", log_error,
            d);
      // x - maximum - log_sum is rounded too, by up to half a unit of d, a relative error of |d|
      // 2^-24.
      const double exp_error = ulps(dinput[static_cast<size_t>(2 * n + 1)], std::exp(d) / sum);
      CHECK(exp_error <= kExpUlps + std::fabs(d), "exp %.3f ulp at %g", exp_error, d);
    }
  });
}
