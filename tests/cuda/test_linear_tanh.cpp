// linear_tanh of a GPU against plain loops in long double: shapes around the tiles, strides, bases
// that are aligned to nothing but their elements, every arithmetic.
#include <cmath>
#include <vector>

#include "cuda/library.h"
#include "orders.h"
#include "sums.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

struct Math {
  DType dtype;
  bool tf32;
};
const Math kMaths[] = {{DType::f32, false},
                       {DType::f32, true},
                       {DType::bf16, false},
                       {DType::f16, false},
                       {DType::f64, false}};

// TF32 rounds each of two factors by up to 2^-11 of it; in units of float32's epsilon, 2^-23.
double rounding_of(const Math& math) { return math.tf32 ? 0x1p13 : 0; }
// tanh.approx serves bfloat16: 2^-11.
double tanh_slack(const Math& math) { return math.dtype == DType::bf16 ? 0x1p12 : 4; }

struct Shape {
  int64_t N, K, H;
};

// Empty in each size, one of each, the lecture's layer, primes, one past the tiles of 64 and the
// slabs of 32 and 64.
const Shape kShapes[] = {{0, 30, 200}, {5, 0, 7},     {5, 7, 0},     {1, 1, 1},
                         {2, 3, 5},    {32, 30, 200}, {7, 31, 17},   {33, 17, 65},
                         {64, 64, 64}, {131, 97, 37}, {65, 129, 66}, {257, 30, 27}};
const Shape kQuickShapes[] = {{5, 0, 7}, {33, 17, 65}, {131, 97, 37}};

std::vector<Shape> shapes() {
  if (quick()) return {std::begin(kQuickShapes), std::end(kQuickShapes)};
  return {std::begin(kShapes), std::end(kShapes)};
}

std::string label(const char* what, const Math& math, const Shape& s) {
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

void check_forward(const Math& math, const Shape& s, bool with_bias, int64_t pad, int64_t past) {
  Matrix input(math.dtype, s.N, s.K, pad, past), weight(math.dtype, s.H, s.K, 2 * pad, past);
  Matrix bias(math.dtype, 1, s.H, 0, past), output(math.dtype, s.N, s.H, 0, past);
  input.values.randomize(1);
  weight.values.randomize(2 / std::sqrt(s.K + 1.0));
  bias.values.randomize(1);
  const auto x = input.doubles(), w = weight.doubles(), b = bias.doubles();
  std::vector<Sum> want(s.N * s.H);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t h = 0; h < s.H; ++h) {
      Sum z;
      if (with_bias) z.add(b[h]);
      for (int64_t k = 0; k < s.K; ++k)
        z.add(static_cast<long double>(x[n * input.stride + k]) * w[h * weight.stride + k]);
      z.value = std::tanh(z.value);  // of slope at most 1: the slack of the sum stays enough
      want[n * s.H + h] = z;
    }
  LinearTanhForward args{};
  args.dtype = math.dtype, args.tf32 = math.tf32;
  args.N = s.N, args.K = s.K, args.H = s.H;
  args.input = input.data(), args.input_row_stride = input.stride;
  args.weight = weight.data(), args.weight_row_stride = weight.stride;
  args.bias = with_bias ? bias.data() : nullptr;
  args.output = output.data();
  run_in_every_order(
      label(with_bias ? "forward" : "forward without bias", math, s), {&output.values.buffer},
      [&] { return launch(cuda::linear_tanh_forward, cuda::linear_tanh_forward_workspace, args); },
      [&] { output.check("output", want, rounding_of(math), tanh_slack(math)); });
}

struct Needs {
  bool input = true, weight = true, bias = true;
};

// doutput_stride < 0: that of the rows and `pad`.
void check_backward(const Math& math, const Shape& s, const Needs& need, int64_t doutput_stride,
                    int64_t pad, int64_t past) {
  Matrix doutput(math.dtype, s.N, s.H, pad, past), output(math.dtype, s.N, s.H, pad, past);
  Matrix input(math.dtype, s.N, s.K, pad, past), weight(math.dtype, s.H, s.K, pad, past);
  if (doutput_stride >= 0) doutput.stride = doutput_stride;
  Matrix dinput(math.dtype, need.input ? s.N : 0, s.K, 0, past);
  Matrix dweight(math.dtype, need.weight ? s.H : 0, s.K, 0, past);
  Matrix dbias(math.dtype, need.bias, s.H, 0, past);
  for (Matrix* m : {&doutput, &output, &input, &weight}) m->values.randomize(0.99);
  const auto x = input.doubles(), w = weight.doubles(), y = output.doubles(),
             dy = doutput.doubles();
  std::vector<Sum> want_dinput(need.input ? s.N * s.K : 0);
  std::vector<Sum> want_dweight(need.weight ? s.H * s.K : 0), want_dbias(need.bias ? s.H : 0);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t h = 0; h < s.H; ++h) {
      const long double y_nh = y[n * output.stride + h];
      const long double dy_nh = dy[n * doutput.stride + h];
      const long double dz = (1 - y_nh * y_nh) * dy_nh;
      const long double dz_size = (1 + y_nh * y_nh) * std::fabs(dy_nh);  // 1 and y^2 cancel
      if (need.bias) want_dbias[h].add(dz, dz_size);
      for (int64_t k = 0; k < s.K; ++k) {
        const double w_hk = w[h * weight.stride + k], x_nk = x[n * input.stride + k];
        if (need.input) want_dinput[n * s.K + k].add(dz * w_hk, dz_size * std::fabs(w_hk));
        if (need.weight) want_dweight[h * s.K + k].add(dz * x_nk, dz_size * std::fabs(x_nk));
      }
    }
  LinearTanhBackward args{};
  args.dtype = math.dtype, args.tf32 = math.tf32;
  args.N = s.N, args.K = s.K, args.H = s.H;
  args.doutput = doutput.data(), args.doutput_row_stride = doutput.stride;
  args.input = input.data(), args.input_row_stride = input.stride;
  args.weight = weight.data(), args.weight_row_stride = weight.stride;
  args.output = output.data(), args.output_row_stride = output.stride;
  args.dinput = need.input ? dinput.data() : nullptr;
  args.dweight = need.weight ? dweight.data() : nullptr;
  args.dbias = need.bias ? dbias.data() : nullptr;
  // dz may be held in dtype between the steps, as stock torch holds it: one rounding of each term.
  const double held = epsilon_of(math.dtype) / epsilon_of(accumulator_of(math.dtype));
  const double product = held + rounding_of(math);
  run_in_every_order(
      label("backward", math, s),
      {&dinput.values.buffer, &dweight.values.buffer, &dbias.values.buffer},
      [&] {
        return launch(cuda::linear_tanh_backward, cuda::linear_tanh_backward_workspace, args);
      },
      [&] {
        dinput.check("dinput", want_dinput, product, 0);
        dweight.check("dweight", want_dweight, product, 0);
        dbias.check("dbias", want_dbias, held, 0);
      });
}

// The forward of one input of K = 1 after another, with weight 1 and no bias.
std::vector<double> tanh_of_each(const Math& math, const std::vector<double>& inputs,
                                 std::vector<double>* rounded) {
  const auto N = static_cast<int64_t>(inputs.size());
  Values input(math.dtype, N), weight(math.dtype, 1), output(math.dtype, N);
  for (int64_t n = 0; n < N; ++n) input.set(n, inputs[n]);
  weight.set(0, 1);
  LinearTanhForward args{};
  args.dtype = math.dtype, args.tf32 = math.tf32;
  args.N = N, args.K = 1, args.H = 1;
  args.input = input.data(), args.input_row_stride = 1;
  args.weight = weight.data(), args.weight_row_stride = 1;
  args.output = output.data();
  launch(cuda::linear_tanh_forward, cuda::linear_tanh_forward_workspace, args);
  *rounded = input.doubles();
  return output.doubles();
}

}  // namespace

TEST_CASE(forward_equals_the_formula) {
  for (const Shape& s : shapes())
    for (const Math& math : kMaths) check_forward(math, s, true, 0, 0);
}

// Rows that allow copies of 16, 8, 4 and 2 bytes, and addresses that do not.
TEST_CASE(forward_reads_rows_at_any_distance_and_address) {
  for (const Math& math : kMaths)
    for (int64_t pad : {0, 1, 2, 4, 8})
      for (int64_t past : {0, 1, 2, 4})
        if (!quick() || pad + past == 1) check_forward(math, {67, 40, 66}, false, pad, past);
}

TEST_CASE(forward_of_more_rows_than_run_at_once) {
  check_forward({DType::f32, true}, {20000, 7, 3}, true, 0, 0);
}

TEST_CASE(tanh_keeps_its_relative_accuracy_near_zero) {
  std::vector<double> inputs;
  for (double size = 1e-30; size < 30; size *= 1.07)
    for (double sign : {1, -1}) inputs.push_back(sign * size * (1 + uniform() / 16));
  for (const Math& math : kMaths) {
    set_context(label("tanh", math, {0, 1, 1}));
    std::vector<double> x;
    const std::vector<double> got = tanh_of_each(math, inputs, &x);
    // float16 and bfloat16 may also round to the other neighbour.
    const double allowed = math.tf32
                               ? 0x1p-11 + 4 * 0x1p-23
                               : (item_size(math.dtype) == 2 ? 1.0 : 4.0) * epsilon_of(math.dtype);
    for (size_t i = 0; i < got.size(); ++i) {
      const double want = std::tanh(x[i]), underflow = math.dtype == DType::f16 ? 0x1p-24 : 0;
      CHECK(std::fabs(got[i] - want) <= allowed * std::fabs(want) + underflow,
            "tanh(%g) got %.9g, want %.9g", x[i], got[i], want);
    }
  }
}

TEST_CASE(forward_reaches_one_and_keeps_nan) {
  const std::vector<double> inputs = {0,    1e-30, -1e-30, 1e-4,     9,         -9, 40,
                                      1e30, -1e30, 3.4e38, INFINITY, -INFINITY, NAN};
  for (const Math& math : kMaths) {
    set_context(label("saturation", math, {0, 1, 1}));
    std::vector<double> x;
    const std::vector<double> got = tanh_of_each(math, inputs, &x);
    const double allowed = math.tf32 ? 0x1p-11 : 4 * epsilon_of(math.dtype);
    for (size_t i = 0; i < got.size(); ++i) {
      const double want = std::tanh(x[i]);
      CHECK(std::isnan(want) ? std::isnan(got[i])
                             : std::fabs(got[i] - want) <= allowed * std::fabs(want),
            "tanh(%g) got %.9g, want %.9g", x[i], got[i], want);
    }
  }
}

// The NaN that GPUs make has every bit set, where adding to the bits would make a number of it.
TEST_CASE(forward_keeps_every_nan) {
  for (bool tf32 : {false, true})
    for (uint32_t bits : {0x7fffffffu, 0xffffffffu, 0x7fc00000u}) {
      set_context(format("NaN %x tf32 %d, ", bits, tf32));
      Values input(DType::f32, 3), weight(DType::f32, 3), output(DType::f32, 1);
      for (Values* values : {&input, &weight}) values->randomize(1);
      static_cast<uint32_t*>(input.data())[1] = bits;
      LinearTanhForward args{};
      args.dtype = DType::f32, args.tf32 = tf32;
      args.N = 1, args.K = 3, args.H = 1;
      args.input = input.data(), args.input_row_stride = 3;
      args.weight = weight.data(), args.weight_row_stride = 3;
      args.output = output.data();
      launch(cuda::linear_tanh_forward, cuda::linear_tanh_forward_workspace, args);
      CHECK(std::isnan(output.get(0)), "got %g", output.get(0));
    }
}

// float32 without tf32 is float32: sums of terms of all sizes that cancel, and sums of terms of one
// sign, whose bits a tensor core cuts off rather than rounds.
TEST_CASE(forward_has_the_accuracy_of_float32) {
  const int64_t N = 40, K = quick() ? 100 : 1000, H = 24;
  for (bool cancelling : {true, false}) {
    Values input(DType::f32, N * K), weight(DType::f32, H * K), output(DType::f32, N * H);
    for (int64_t k = 0; k < K; ++k) {
      const double scale = std::exp((uniform() - 0.5) * (cancelling ? 140 : 0));
      for (int64_t n = 0; n < N; ++n) {
        const bool second = cancelling && k % 2;  // nearly takes back the one before
        const double size = cancelling ? 1 / std::sqrt(K) : 0.5 / static_cast<double>(K);
        input.set(n * K + k, second ? -input.get(n * K + k - 1) * (1 + 1e-3 * uniform())
                                    : scale * size * (0.5 + uniform()));
      }
      for (int64_t h = 0; h < H; ++h)
        weight.set(h * K + k,
                   cancelling && k % 2 ? weight.get(h * K + k - 1) : (0.5 + uniform()) / scale);
    }
    const auto x = input.doubles(), w = weight.doubles();
    std::vector<Sum> want(N * H);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t h = 0; h < H; ++h) {
        Sum& z = want[n * H + h];
        for (int64_t k = 0; k < K; ++k)
          z.add(static_cast<long double>(x[n * K + k]) * w[h * K + k]);
        z.value = std::tanh(z.value);
        z.terms /= cancelling ? 1 : 16;  // a quarter of the slack: no drift
      }
    LinearTanhForward args{};
    args.dtype = DType::f32;
    args.N = N, args.K = K, args.H = H;
    args.input = input.data(), args.input_row_stride = K;
    args.weight = weight.data(), args.weight_row_stride = K;
    args.output = output.data();
    set_context(cancelling ? "cancelling, " : "one sign, ");
    launch(cuda::linear_tanh_forward, cuda::linear_tanh_forward_workspace, args);
    check_sums("output", output, want, 0, 4);
  }
}

TEST_CASE(backward_equals_the_formula) {
  for (const Shape& s : shapes())
    for (const Math& math : kMaths) check_backward(math, s, {}, -1, 0, 0);
}

// Several pieces of the batch, the last of them shorter.
TEST_CASE(backward_of_a_batch_in_pieces) {
  for (const Math& math : kMaths)
    for (bool bias : {true, false}) check_backward(math, {701, 5, 7}, {true, true, bias}, -1, 0, 0);
}

TEST_CASE(backward_computes_what_is_asked) {
  for (const Math& math : kMaths)
    for (int needs = 0; needs < 8; ++needs)
      if (!quick() || needs == 4)
        check_backward(math, {200, 17, 65}, {(needs & 1) != 0, (needs & 2) != 0, (needs & 4) != 0},
                       -1, 0, 0);
}

TEST_CASE(backward_reads_rows_at_any_distance_and_address) {
  for (const Math& math : kMaths)
    for (int64_t pad : {0, 1, 2, 8})
      for (int64_t past : {0, 1, 2, 4})
        if (!quick() || pad + past == 1) check_backward(math, {67, 40, 66}, {}, -1, pad, past);
}

// The gradient of a sum: every row is the same row.
TEST_CASE(backward_of_a_broadcast_gradient) {
  for (const Math& math : kMaths) check_backward(math, {33, 17, 65}, {}, 0, 3, 0);
}

// An infinite weight makes one column of dinput infinite, an infinite input one of dweight.
TEST_CASE(backward_keeps_infinities_to_their_columns) {
  for (const Math& math : kMaths) {
    const int64_t N = 300, K = 5, H = 3;
    Values doutput(math.dtype, N * H), output(math.dtype, N * H), input(math.dtype, N * K);
    Values weight(math.dtype, H * K), dinput(math.dtype, N * K), dweight(math.dtype, H * K);
    for (Values* values : {&doutput, &output, &input, &weight}) values->randomize(0.9);
    input.set(7 * K + 2, INFINITY);
    weight.set(1 * K + 4, -INFINITY);
    LinearTanhBackward args{};
    args.dtype = math.dtype, args.tf32 = math.tf32;
    args.N = N, args.K = K, args.H = H;
    args.doutput = doutput.data(), args.doutput_row_stride = H;
    args.input = input.data(), args.input_row_stride = K;
    args.weight = weight.data(), args.weight_row_stride = K;
    args.output = output.data(), args.output_row_stride = H;
    args.dinput = dinput.data(), args.dweight = dweight.data();
    set_context(label("infinities", math, {N, K, H}));
    launch(cuda::linear_tanh_backward, cuda::linear_tanh_backward_workspace, args);
    for (int64_t i = 0; i < N * K; ++i) {
      const double dz = doutput.get(i / K * H + 1);  // of this sign
      CHECK(i % K == 4 ? dinput.get(i) == (dz > 0 ? -INFINITY : INFINITY)
                       : std::isfinite(dinput.get(i)),
            "dinput[%lld] got %g", static_cast<long long>(i), dinput.get(i));
    }
    for (int64_t i = 0; i < H * K; ++i) {
      const double dz = doutput.get(7 * H + i / K);
      CHECK(i % K == 2 ? dweight.get(i) == (dz > 0 ? INFINITY : -INFINITY)
                       : std::isfinite(dweight.get(i)),
            "dweight[%lld] got %g", static_cast<long long>(i), dweight.get(i));
    }
  }
}

TEST_CASE(epilogue_adds_bias_and_takes_tanh) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const Shape& s : {Shape{5, 0, 0}, Shape{0, 0, 5}, Shape{33, 0, 7}, Shape{9, 0, 264}})
      for (int with_bias = 0; with_bias < 2; ++with_bias)
        for (int64_t past : {0, 1}) {
          Matrix product(dtype, s.N, s.H, 0, 0), output(dtype, s.N, s.H, 0, past);
          Values bias(dtype, s.H);
          product.values.randomize(2);
          const auto z = product.doubles();
          bias.randomize(1);
          LinearTanhEpilogue args{};
          args.dtype = dtype;
          args.N = s.N, args.H = s.H;
          args.bias = with_bias ? bias.data() : nullptr;
          args.output = output.data();
          run_in_every_order(
              label("epilogue", {dtype, false}, s), {&output.values.buffer},
              [&] {
                for (int64_t i = 0; i < s.N * s.H; ++i) output.values.set(output.shift + i, z[i]);
                return launch(cuda::linear_tanh_epilogue, cuda::linear_tanh_epilogue_workspace,
                              args);
              },
              [&] {
                const auto all = output.doubles();
                for (int64_t i = 0; i < s.N * s.H; ++i) {
                  const double want = std::tanh(z[i] + (with_bias ? bias.get(i % s.H) : 0));
                  const double got = all[i];
                  CHECK(std::fabs(got - want) <= 4 * epsilon_of(dtype), "got %g, want %g", got,
                        want);
                }
              });
        }
}

TEST_CASE(slope_equals_the_formula) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const Shape& s : {Shape{0, 0, 5}, Shape{5, 0, 0}, Shape{131, 0, 7}, Shape{65, 0, 264}})
      for (int with_dbias = 0; with_dbias < 2; ++with_dbias)
        for (int64_t pad : {0, 3}) {
          Matrix doutput(dtype, s.N, s.H, pad, 0), output(dtype, s.N, s.H, pad, 0);
          Matrix dz(dtype, s.N, s.H, 0, 0);
          Values dbias(dtype, with_dbias ? s.H : 0);
          for (Matrix* m : {&doutput, &output}) m->values.randomize(0.99);
          const auto dy = doutput.doubles(), y = output.doubles();
          std::vector<Sum> want_dz(s.N * s.H), want_dbias(dbias.count);
          for (int64_t n = 0; n < s.N; ++n)
            for (int64_t h = 0; h < s.H; ++h) {
              const long double out = y[n * output.stride + h], up = dy[n * doutput.stride + h];
              const long double value = (1 - out * out) * up,
                                size = (1 + out * out) * std::fabs(up);
              want_dz[n * s.H + h].add(value, size);
              if (with_dbias) want_dbias[h].add(value, size);
            }
          LinearTanhSlope args{};
          args.dtype = dtype;
          args.N = s.N, args.H = s.H;
          args.doutput = doutput.data(), args.doutput_row_stride = doutput.stride;
          args.output = output.data(), args.output_row_stride = output.stride;
          args.dz = dz.data();
          args.dbias = with_dbias ? dbias.data() : nullptr;
          run_in_every_order(
              label("slope", {dtype, false}, s), {&dz.values.buffer, &dbias.buffer},
              [&] {
                return launch(cuda::linear_tanh_slope, cuda::linear_tanh_slope_workspace, args);
              },
              [&] {
                dz.check("dz", want_dz, 0, 0);
                check_sums("dbias", dbias, want_dbias, 0, 0);
              });
        }
}
