// embedding_linear_tanh against plain loops in long double: every dtype and id type, strides, bad
// ids, on both of its ways.
#include <cmath>
#include <vector>

#include "sums.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

struct Shape {
  int64_t N, T, V, D, H;
  int64_t multiply_adds() const { return N * T * D * H; }
};

// Empty in each size, one of each, the lecture's layer, primes, around the tiles; then batches of
// many times the table, which are folded, up to several pieces; and a table too large for that.
const Shape kShapes[] = {{0, 3, 27, 10, 20},   {5, 0, 27, 10, 7},    {5, 2, 7, 0, 3},
                         {5, 2, 7, 3, 0},      {0, 3, 0, 10, 5},     {1, 1, 1, 1, 1},
                         {32, 3, 27, 10, 200}, {7, 2, 5, 31, 17},    {33, 5, 300, 7, 65},
                         {129, 2, 41, 33, 31}, {300, 3, 11, 5, 49},  {1500, 3, 27, 10, 65},
                         {700, 1, 3, 17, 9},   {2000, 2, 150, 8, 16}};

std::string label(const char* what, DType dtype, IndexType type, const Shape& s) {
  return format("%s %s %s N=%lld T=%lld V=%lld D=%lld H=%lld", what, name_of(dtype), name_of(type),
                static_cast<long long>(s.N), static_cast<long long>(s.T),
                static_cast<long long>(s.V), static_cast<long long>(s.D),
                static_cast<long long>(s.H));
}

// The arrays of one problem, with `pad` elements after each row.
struct Problem {
  Shape s;
  int64_t id_row, id_col, embedding_row, weight_row;
  Ids input;
  Values embedding, weight;
  std::vector<double> e, w;

  Problem(DType dtype, IndexType type, const Shape& shape, int64_t pad)
      : s(shape),
        id_row(2 * s.T + pad),
        id_col(2),
        embedding_row(s.D + pad),
        weight_row(s.T * s.D + 2 * pad),
        input(type, s.N * id_row),
        embedding(dtype, s.V * embedding_row),
        weight(dtype, s.H * weight_row) {
    input.randomize(type == IndexType::u8 && s.V > 256 ? 256 : s.V);
    embedding.randomize(1);
    weight.randomize(2 / std::sqrt(s.T * s.D + 1.0));
    e = embedding.doubles(), w = weight.doubles();
  }

  int64_t id(int64_t n, int64_t t) const { return input.get(n * id_row + t * id_col); }
  double x(int64_t n, int64_t t, int64_t d) const { return e[id(n, t) * embedding_row + d]; }

  template <class Args>
  Args arguments() {
    Args args{};
    args.dtype = embedding.dtype;
    args.index_type = input.type;
    args.N = s.N, args.T = s.T, args.V = s.V, args.D = s.D, args.H = s.H;
    args.input = input.data(), args.input_row_stride = id_row, args.input_col_stride = id_col;
    args.embedding = embedding.data(), args.embedding_row_stride = embedding_row;
    args.weight = weight.data(), args.weight_row_stride = weight_row;
    return args;
  }
};

int64_t run_forward(const EmbeddingLinearTanhForward& args) {
  return launch(cpu::embedding_linear_tanh_forward, cpu::embedding_linear_tanh_forward_workspace,
                args);
}

int64_t run_backward(const EmbeddingLinearTanhBackward& args) {
  return launch(cpu::embedding_linear_tanh_backward, cpu::embedding_linear_tanh_backward_workspace,
                args);
}

void check_forward(DType dtype, IndexType type, const Shape& s, bool with_bias, int64_t pad) {
  if (left_out(s.multiply_adds())) return;
  Problem problem(dtype, type, s, pad);
  Values bias(dtype, s.H), output(dtype, s.N * s.H);
  bias.randomize(1);
  std::vector<Sum> want(s.N * s.H);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t h = 0; h < s.H; ++h) {
      Sum z;
      if (with_bias) z.add(bias.get(h));
      for (int64_t t = 0; t < s.T; ++t)
        for (int64_t d = 0; d < s.D; ++d)
          z.add(static_cast<long double>(problem.x(n, t, d)) *
                problem.w[h * problem.weight_row + t * s.D + d]);
      z.value = std::tanh(z.value);  // its slope is at most 1, so the slack of the sum suffices
      want[n * s.H + h] = z;
    }
  auto args = problem.arguments<EmbeddingLinearTanhForward>();
  args.bias = with_bias ? bias.data() : nullptr;
  args.output = output.data();
  run_everywhere(
      label(with_bias ? "forward" : "forward without bias", dtype, type, s), {&output.buffer},
      [&] { return run_forward(args); }, [&] { check_sums("output", output, want, 0, 4); });
}

void check_backward(DType dtype, IndexType type, const Shape& s, int needs, int64_t doutput_row,
                    int64_t pad) {
  if (left_out(s.multiply_adds())) return;
  Problem problem(dtype, type, s, pad);
  const int64_t K = s.T * s.D, output_row = s.H + pad;
  Values doutput(dtype, s.N * doutput_row + s.H), output(dtype, s.N * output_row);
  Values dembedding(dtype, needs & 1 ? s.V * s.D : 0), dweight(dtype, needs & 2 ? s.H * K : 0);
  Values dbias(dtype, needs & 4 ? s.H : 0);
  for (Values* values : {&doutput, &output}) values->randomize(0.99);
  const auto y = output.doubles(), dy = doutput.doubles();
  std::vector<Sum> want_dembedding(s.V * s.D), want_dweight(s.H * K), want_dbias(s.H);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t h = 0; h < s.H; ++h) {
      const long double y_nh = y[n * output_row + h], dy_nh = dy[n * doutput_row + h];
      const long double dz = (1 - y_nh * y_nh) * dy_nh;
      const long double dz_size = (1 + y_nh * y_nh) * std::fabs(dy_nh);  // 1 and y^2 cancel
      want_dbias[h].add(dz, dz_size);
      for (int64_t t = 0; t < s.T; ++t)
        for (int64_t d = 0; d < s.D; ++d) {
          const int64_t k = t * s.D + d;
          const double w_hk = problem.w[h * problem.weight_row + k], x_nk = problem.x(n, t, d);
          want_dembedding[problem.id(n, t) * s.D + d].add(dz * w_hk, dz_size * std::fabs(w_hk));
          want_dweight[h * K + k].add(dz * x_nk, dz_size * std::fabs(x_nk));
        }
    }
  auto args = problem.arguments<EmbeddingLinearTanhBackward>();
  args.doutput = doutput.data(), args.doutput_row_stride = doutput_row;
  args.output = output.data(), args.output_row_stride = output_row;
  args.dembedding = needs & 1 ? dembedding.data() : nullptr;
  args.dweight = needs & 2 ? dweight.data() : nullptr;
  args.dbias = needs & 4 ? dbias.data() : nullptr;
  run_everywhere(
      label("backward", dtype, type, s), {&dembedding.buffer, &dweight.buffer, &dbias.buffer},
      [&] { return run_backward(args); },
      [&] {
        if (needs & 1) check_sums("dembedding", dembedding, want_dembedding, 0, 0);
        if (needs & 2) check_sums("dweight", dweight, want_dweight, 0, 0);
        if (needs & 4) check_sums("dbias", dbias, want_dbias, 0, 0);
      });
}

// Puts a bad id at (n, t) and one at the very end, which must not be the one reported, and runs
// both directions.
void check_bad_id(const Shape& s, int64_t bad, int64_t n, int64_t t) {
  if (left_out(s.multiply_adds())) return;
  Problem problem(DType::f32, IndexType::i64, s, 1);
  problem.input.set(n * problem.id_row + t * problem.id_col, bad);
  problem.input.set((s.N - 1) * problem.id_row + (s.T - 1) * problem.id_col, bad);
  Values rows(DType::f32, s.N * s.H), dembedding(DType::f32, s.V * s.D);
  Values dweight(DType::f32, s.H * s.T * s.D);
  auto forward = problem.arguments<EmbeddingLinearTanhForward>();
  forward.output = rows.data();
  int64_t found = run_forward(forward);
  CHECK(found == n * s.T + t, "forward found %lld", static_cast<long long>(found));
  CHECK(rows.buffer.guards_intact(), "forward wrote outside its output");
  rows.randomize(0.9);
  auto backward = problem.arguments<EmbeddingLinearTanhBackward>();
  backward.doutput = backward.output = rows.data();
  backward.doutput_row_stride = backward.output_row_stride = s.H;
  backward.dembedding = dembedding.data(), backward.dweight = dweight.data();
  found = run_backward(backward);
  CHECK(found == n * s.T + t, "backward found %lld", static_cast<long long>(found));
  CHECK(dembedding.buffer.guards_intact() && dweight.buffer.guards_intact(),
        "backward wrote outside its outputs");
}

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
constexpr IndexType kIndexTypes[] = {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64};

}  // namespace

TEST_CASE(forward_equals_the_formula) {
  for (const Shape& s : kShapes)
    for (DType dtype : kDTypes) check_forward(dtype, IndexType::i64, s, true, 0);
}

TEST_CASE(forward_without_bias_padded_rows_and_every_id_type) {
  for (const Shape& s : {Shape{33, 5, 300, 7, 65}, Shape{300, 3, 11, 5, 49}})
    for (IndexType type : kIndexTypes) check_forward(DType::f32, type, s, false, 3);
}

TEST_CASE(backward_equals_the_formula) {
  for (const Shape& s : kShapes)
    for (DType dtype : kDTypes) check_backward(dtype, IndexType::i64, s, 7, s.H, 0);
}

TEST_CASE(backward_computes_what_is_asked) {
  for (const Shape& s : {Shape{33, 5, 300, 7, 65}, Shape{300, 3, 11, 5, 49}})
    for (int needs = 0; needs < 8; ++needs)
      check_backward(DType::f32, IndexType::i32, s, needs, s.H, 0);
}

TEST_CASE(backward_reads_rows_at_any_distance_and_every_id_type) {
  for (const Shape& s : {Shape{33, 5, 300, 7, 65}, Shape{300, 3, 11, 5, 49}})
    for (IndexType type : kIndexTypes)
      for (int64_t doutput_row : {int64_t{0}, s.H, s.H + 5})
        check_backward(DType::f32, type, s, 7, doutput_row, 3);
}

// A large table, whose dx is summed a chunk of the batch at a time.
TEST_CASE(backward_of_several_chunks) {
  for (DType dtype : {DType::f32, DType::bf16})
    check_backward(dtype, IndexType::i32, {20000, 4, 19001, 30, 1}, 3, 1, 0);
}

TEST_CASE(first_bad_id_is_reported_and_nothing_is_written_outside) {
  for (const Shape& s : {Shape{10, 3, 27, 10, 20}, Shape{3000, 3, 27, 10, 20}})
    for (int64_t bad : {int64_t{-1}, s.V, INT64_MIN, INT64_MAX})
      for (int64_t n : {int64_t{0}, s.N / 2 + 1, s.N - 1})
        for_each_isa(label("bad id", DType::f32, IndexType::i64, s),
                     [&] { check_bad_id(s, bad, n, n % s.T); });
}
