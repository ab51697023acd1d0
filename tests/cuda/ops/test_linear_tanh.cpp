// linear_tanh of a GPU, forward, against plain loops in long double: shapes around the tiles,
// strides, bases, every arithmetic; and the epilogue of a product by another library.
#include <sys/mman.h>

#include <cmath>
#include <vector>

#include "linear_tanh_problem.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

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
      z.value = std::tanh(z.value);  // its slope is at most 1, so the slack of the sum suffices
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
    // float16 and bfloat16 may also round to the other neighbor.
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

// The NaN of GPUs has every bit set, so that adding to its bits would yield a number.
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
// sign, which a tensor core truncates rather than rounds.
TEST_CASE(forward_has_the_accuracy_of_float32) {
  const int64_t N = 40, K = quick() ? 100 : 1000, H = 24;
  for (bool cancelling : {true, false}) {
    Values input(DType::f32, N * K), weight(DType::f32, H * K), output(DType::f32, N * H);
    for (int64_t k = 0; k < K; ++k) {
      const double scale = std::exp((uniform() - 0.5) * (cancelling ? 140 : 0));
      for (int64_t n = 0; n < N; ++n) {
        const bool second = cancelling && k % 2;  // nearly cancels the previous one
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

// Two rows more than 2^32 bytes apart, in a reservation of which little more than both is mapped.
TEST_CASE(forward_reads_rows_very_far_apart) {
  const int64_t K = 8, H = 3, stride = (int64_t{1} << 30) + 4;
  const size_t bytes = (stride + K) * sizeof(float);
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED, "no %zu bytes of addresses", bytes);
  float* const input = static_cast<float*>(memory);
  Values weight(DType::f32, H * K), output(DType::f32, 2 * H);
  weight.randomize(0.5);
  const auto w = weight.doubles();
  std::vector<Sum> want(2 * H);
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t k = 0; k < K; ++k) {
      input[n * stride + k] = static_cast<float>(uniform() + static_cast<double>(n));
      for (int64_t h = 0; h < H; ++h)
        want[n * H + h].add(static_cast<long double>(input[n * stride + k]) * w[h * K + k]);
    }
  for (Sum& z : want) z.value = std::tanh(z.value);
  LinearTanhForward args{};
  args.dtype = DType::f32;
  args.N = 2, args.K = K, args.H = H;
  args.input = input, args.input_row_stride = stride;
  args.weight = weight.data(), args.weight_row_stride = K;
  args.output = output.data();
  launch(cuda::linear_tanh_forward, cuda::linear_tanh_forward_workspace, args);
  munmap(memory, bytes);
  check_sums("rows far apart", output, want, 0, 4);
}
