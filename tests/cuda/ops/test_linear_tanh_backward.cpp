// linear_tanh of a GPU, backward, against plain loops in long double: shapes around the tiles,
// strides, bases, every arithmetic; and the slope for products by another library.
#include <cmath>
#include <vector>

#include "linear_tanh_problem.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

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

// Contiguous matrices of numbers, and a call for the gradients of both factors.
struct Contiguous {
  Contiguous(const Math& math, const Shape& s)
      : doutput(math.dtype, s.N * s.H),
        output(math.dtype, s.N * s.H),
        input(math.dtype, s.N * s.K),
        weight(math.dtype, s.H * s.K),
        dinput(math.dtype, s.N * s.K),
        dweight(math.dtype, s.H * s.K) {
    for (Values* values : {&doutput, &output, &input, &weight}) values->randomize(0.9);
    args.dtype = math.dtype, args.tf32 = math.tf32;
    args.N = s.N, args.K = s.K, args.H = s.H;
    args.doutput = doutput.data(), args.doutput_row_stride = s.H;
    args.input = input.data(), args.input_row_stride = s.K;
    args.weight = weight.data(), args.weight_row_stride = s.K;
    args.output = output.data(), args.output_row_stride = s.H;
    args.dinput = dinput.data(), args.dweight = dweight.data();
  }
  void run() { launch(cuda::linear_tanh_backward, cuda::linear_tanh_backward_workspace, args); }
  Values doutput, output, input, weight, dinput, dweight;
  LinearTanhBackward args{};
};

}  // namespace

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
    Contiguous c(math, {N, K, H});
    c.input.set(7 * K + 2, INFINITY);
    c.weight.set(1 * K + 4, -INFINITY);
    set_context(label("infinities", math, {N, K, H}));
    c.run();
    for (int64_t i = 0; i < N * K; ++i) {
      const double dz = c.doutput.get(i / K * H + 1);  // of this sign
      CHECK(i % K == 4 ? c.dinput.get(i) == (dz > 0 ? -INFINITY : INFINITY)
                       : std::isfinite(c.dinput.get(i)),
            "dinput[%lld] got %g", static_cast<long long>(i), c.dinput.get(i));
    }
    for (int64_t i = 0; i < H * K; ++i) {
      const double dz = c.doutput.get(7 * H + i / K);
      CHECK(i % K == 2 ? c.dweight.get(i) == (dz > 0 ? INFINITY : -INFINITY)
                       : std::isfinite(c.dweight.get(i)),
            "dweight[%lld] got %g", static_cast<long long>(i), c.dweight.get(i));
    }
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

// Also the NaN whose bits plus a rounding would be a number.
TEST_CASE(backward_keeps_every_nan) {
  for (bool tf32 : {false, true})
    for (uint32_t bits : {0x7fffffffu, 0xffffffffu, 0x7fc00000u}) {
      const int64_t N = 3, K = 2, H = 2;
      Contiguous c({DType::f32, tf32}, {N, K, H});
      static_cast<uint32_t*>(c.doutput.data())[1 * H + 1] = bits;
      set_context(format("NaN %x tf32 %d, ", bits, tf32));
      c.run();
      for (int64_t i = 0; i < N * K; ++i)
        CHECK(std::isnan(c.dinput.get(i)) == (i / K == 1), "dinput[%lld] got %g",
              static_cast<long long>(i), c.dinput.get(i));
      for (int64_t i = 0; i < H * K; ++i)
        CHECK(std::isnan(c.dweight.get(i)) == (i / K == 1), "dweight[%lld] got %g",
              static_cast<long long>(i), c.dweight.get(i));
    }
}
