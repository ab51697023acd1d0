// linear_tanh against plain loops in long double: shapes around the register tiles, strides,
// dtypes.
#include <cmath>
#include <vector>

#include "sums.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

struct Shape {
  int64_t N, K, H;
};

// Empty in each size, one of each, the lecture's layer, primes, one past the usual tiles, and
// shapes large enough for the parallel paths.
const Shape kShapes[] = {{0, 30, 200},  {5, 0, 7},       {5, 7, 0},      {1, 1, 1},
                         {2, 3, 5},     {32, 30, 200},   {7, 31, 17},    {33, 17, 65},
                         {15, 129, 49}, {64, 64, 64},    {131, 257, 37}, {257, 30, 27},
                         {1, 512, 100}, {600, 100, 300}, {3000, 30, 200}};

std::string label(const char* what, DType dtype, const Shape& s) {
  return format("%s %s N=%lld K=%lld H=%lld", what, name_of(dtype), static_cast<long long>(s.N),
                static_cast<long long>(s.K), static_cast<long long>(s.H));
}

void check_forward(DType dtype, const Shape& s, bool with_bias, int64_t pad) {
  if (left_out(s.N * s.K * s.H)) return;
  const int64_t input_row = s.K + pad, weight_row = s.K + 2 * pad;
  Values input(dtype, s.N * input_row), weight(dtype, s.H * weight_row), bias(dtype, s.H);
  Values output(dtype, s.N * s.H);
  input.randomize(1);
  weight.randomize(2 / std::sqrt(s.K + 1.0));
  bias.randomize(1);
  const auto x = input.doubles(), w = weight.doubles(), b = bias.doubles();
  std::vector<Sum> want(s.N * s.H);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t h = 0; h < s.H; ++h) {
      Sum z;
      if (with_bias) z.add(b[h]);
      for (int64_t k = 0; k < s.K; ++k)
        z.add(static_cast<long double>(x[n * input_row + k]) * w[h * weight_row + k]);
      z.value = std::tanh(z.value);  // its slope is at most 1, so the slack of the sum suffices
      want[n * s.H + h] = z;
    }
  LinearTanhForward args{};
  args.dtype = dtype;
  args.N = s.N, args.K = s.K, args.H = s.H;
  args.input = input.data(), args.input_row_stride = input_row;
  args.weight = weight.data(), args.weight_row_stride = weight_row;
  args.bias = with_bias ? bias.data() : nullptr;
  args.output = output.data();
  run_everywhere(
      label(with_bias ? "forward" : "forward without bias", dtype, s), {&output.buffer},
      [&] { return launch(cpu::linear_tanh_forward, cpu::linear_tanh_forward_workspace, args); },
      // tanh itself may be off by a few units in the last place.
      [&] { check_sums("output", output, want, 0, 4); });
}

void check_backward(DType dtype, const Shape& s, bool need_input, bool need_weight, bool need_bias,
                    int64_t doutput_row, int64_t pad) {
  if (left_out(s.N * s.K * s.H)) return;
  const int64_t input_row = s.K + pad, weight_row = s.K + pad, output_row = s.H + pad;
  Values doutput(dtype, s.N * doutput_row + s.H), input(dtype, s.N * input_row);
  Values weight(dtype, s.H * weight_row), output(dtype, s.N * output_row);
  Values dinput(dtype, need_input ? s.N * s.K : 0), dweight(dtype, need_weight ? s.H * s.K : 0);
  Values dbias(dtype, need_bias ? s.H : 0);
  for (Values* values : {&doutput, &input, &weight, &output}) values->randomize(0.99);
  const auto x = input.doubles(), w = weight.doubles(), y = output.doubles(),
             dy = doutput.doubles();
  std::vector<Sum> want_dinput(s.N * s.K), want_dweight(s.H * s.K), want_dbias(s.H);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t h = 0; h < s.H; ++h) {
      const long double y_nh = y[n * output_row + h];
      const long double dy_nh = dy[n * doutput_row + h];
      const long double dz = (1 - y_nh * y_nh) * dy_nh;
      const long double dz_size = (1 + y_nh * y_nh) * std::fabs(dy_nh);  // 1 and y^2 cancel
      want_dbias[h].add(dz, dz_size);
      for (int64_t k = 0; k < s.K; ++k) {
        const double w_hk = w[h * weight_row + k], x_nk = x[n * input_row + k];
        want_dinput[n * s.K + k].add(dz * w_hk, dz_size * std::fabs(w_hk));
        want_dweight[h * s.K + k].add(dz * x_nk, dz_size * std::fabs(x_nk));
      }
    }
  LinearTanhBackward args{};
  args.dtype = dtype;
  args.N = s.N, args.K = s.K, args.H = s.H;
  args.doutput = doutput.data(), args.doutput_row_stride = doutput_row;
  args.input = input.data(), args.input_row_stride = input_row;
  args.weight = weight.data(), args.weight_row_stride = weight_row;
  args.output = output.data(), args.output_row_stride = output_row;
  args.dinput = need_input ? dinput.data() : nullptr;
  args.dweight = need_weight ? dweight.data() : nullptr;
  args.dbias = need_bias ? dbias.data() : nullptr;
  // dz may be held in dtype between the steps, as stock torch holds it: one rounding of each term.
  const double held = epsilon_of(dtype) / epsilon_of(accumulator_of(dtype));
  run_everywhere(
      label("backward", dtype, s), {&dinput.buffer, &dweight.buffer, &dbias.buffer},
      [&] { return launch(cpu::linear_tanh_backward, cpu::linear_tanh_backward_workspace, args); },
      [&] {
        check_sums("dinput", dinput, want_dinput, held, 0);
        check_sums("dweight", dweight, want_dweight, held, 0);
        check_sums("dbias", dbias, want_dbias, held, 0);
      });
}

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};

}  // namespace

TEST_CASE(forward_equals_the_formula) {
  for (const Shape& s : kShapes)
    for (DType dtype : kDTypes) check_forward(dtype, s, true, 0);
}

TEST_CASE(forward_without_bias_and_with_padded_rows) {
  for (const Shape& s : {Shape{32, 30, 200}, Shape{7, 31, 17}, Shape{131, 257, 37}})
    for (DType dtype : kDTypes)
      for (int64_t pad : {0, 3}) check_forward(dtype, s, false, pad);
}

TEST_CASE(forward_reaches_one_and_keeps_nan) {
  for_each_isa("saturation", [&] {
    const double inputs[] = {0, 1e-30, -1e-30, 1e-4, 9, -9, 40, -1e30, INFINITY, -INFINITY, NAN};
    const int64_t N = sizeof inputs / sizeof *inputs;
    for (DType dtype : {DType::f32, DType::f64}) {
      Values input(dtype, N), weight(dtype, 1), output(dtype, N);
      for (int64_t n = 0; n < N; ++n) input.set(n, inputs[n]);
      weight.set(0, 1);
      LinearTanhForward args{};
      args.dtype = dtype;
      args.N = N, args.K = 1, args.H = 1;
      args.input = input.data(), args.input_row_stride = 1;
      args.weight = weight.data(), args.weight_row_stride = 1;
      args.output = output.data();
      launch(cpu::linear_tanh_forward, cpu::linear_tanh_forward_workspace, args);
      for (int64_t n = 0; n < N; ++n) {
        const double got = output.get(n), want = std::tanh(input.get(n));
        CHECK(std::isnan(want) ? std::isnan(got)
                               : std::fabs(got - want) <= 4 * epsilon_of(dtype) * std::fabs(want),
              "tanh(%g) got %.9g, want %.9g", inputs[n], got, want);
      }
    }
  });
}

TEST_CASE(backward_equals_the_formula) {
  for (const Shape& s : kShapes)
    for (DType dtype : kDTypes) check_backward(dtype, s, true, true, true, s.H, 0);
}

TEST_CASE(backward_computes_what_is_asked) {
  for (int needs = 0; needs < 8; ++needs)
    check_backward(DType::f32, {33, 17, 65}, needs & 1, needs & 2, needs & 4, 65, 0);
}

TEST_CASE(backward_reads_rows_at_any_distance) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (int64_t doutput_row : {0, 65, 70})
      check_backward(dtype, {33, 17, 65}, true, true, true, doutput_row, 3);
}
