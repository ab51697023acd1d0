// embedding_gather against plain loops: every dtype and id type, strides, padding, bad ids.
#include <cmath>
#include <vector>

#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

struct Shape {
  int64_t N, T, V, D;
};

// Nothing, one of each, the lecture's shape, primes, one past a vector, one past a tile of rows;
// the last two are large enough for the parallel paths with a small and a large table.
const Shape kShapes[] = {{0, 3, 27, 10},     {5, 0, 27, 10},       {1, 1, 1, 1},
                         {32, 3, 27, 10},    {7, 2, 5, 3},         {13, 1, 300, 17},
                         {129, 5, 27, 33},   {257, 3, 1009, 64},   {9, 4, 27, 0},
                         {40000, 3, 27, 10}, {20000, 1, 50021, 24}};

std::string label(const char* what, DType dtype, IndexType type, const Shape& s) {
  return format("%s %s %s N=%lld T=%lld V=%lld D=%lld", what, name_of(dtype), name_of(type),
                static_cast<long long>(s.N), static_cast<long long>(s.T),
                static_cast<long long>(s.V), static_cast<long long>(s.D));
}

// The largest id that both the table and the id type can hold, plus one.
int64_t bound_of(IndexType type, int64_t V) {
  return type == IndexType::u8 && V > 256 ? 256 : type == IndexType::i16 && V > 32768 ? 32768 : V;
}

template <class Args>
Args arguments(DType dtype, const Shape& s, Ids& input, int64_t row, int64_t col) {
  Args args{};
  args.dtype = dtype;
  args.index_type = input.type;
  args.N = s.N, args.T = s.T, args.V = s.V, args.D = s.D;
  args.input = input.data(), args.input_row_stride = row, args.input_col_stride = col;
  return args;
}

int64_t run_forward(const EmbeddingGatherForward& args) {
  return launch(cpu::embedding_gather_forward, cpu::embedding_gather_forward_workspace, args);
}

int64_t run_backward(const EmbeddingGatherBackward& args) {
  return launch(cpu::embedding_gather_backward, cpu::embedding_gather_backward_workspace, args);
}

void check_forward(DType dtype, IndexType type, const Shape& s) {
  if (left_out(s.N * s.T * s.D)) return;
  const int64_t row = 2 * s.T + 3, col = 2;  // ids of a non-contiguous view
  const int64_t weight_row = s.D + 5;
  Ids input(type, s.N * row);
  input.randomize(bound_of(type, s.V));
  Values weight(dtype, s.V * weight_row), output(dtype, s.N * s.T * s.D);
  weight.randomize(4);
  auto args = arguments<EmbeddingGatherForward>(dtype, s, input, row, col);
  args.weight = weight.data(), args.weight_row_stride = weight_row;
  args.output = output.data();
  run_everywhere(
      label("forward", dtype, type, s), {&output.buffer}, [&] { return run_forward(args); },
      [&] {
        for (int64_t n = 0; n < s.N; ++n)
          for (int64_t t = 0; t < s.T; ++t)
            for (int64_t d = 0; d < s.D; ++d) {
              const double got = output.get((n * s.T + t) * s.D + d);
              const double want = weight.get(input.get(n * row + t * col) * weight_row + d);
              CHECK(got == want, "output[%lld, %lld] got %g, want %g", static_cast<long long>(n),
                    static_cast<long long>(t * s.D + d), got, want);
            }
      });
}

void check_backward(DType dtype, IndexType type, const Shape& s, int64_t doutput_row,
                    int64_t padding_idx) {
  if (left_out(s.N * s.T * s.D)) return;
  const int64_t row = s.T + 1;
  Ids input(type, s.N * row);
  input.randomize(bound_of(type, s.V));
  Values doutput(dtype, s.N * doutput_row + s.T * s.D), dweight(dtype, s.V * s.D);
  doutput.randomize(1);
  const auto dy = doutput.doubles();
  std::vector<double> sum(s.V * s.D), size(s.V * s.D);
  std::vector<int64_t> terms(s.V);
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t t = 0; t < s.T; ++t) {
      const int64_t v = input.get(n * row + t);
      if (v == padding_idx) continue;
      ++terms[v];
      for (int64_t d = 0; d < s.D; ++d) {
        sum[v * s.D + d] += dy[n * doutput_row + t * s.D + d];
        size[v * s.D + d] += std::fabs(dy[n * doutput_row + t * s.D + d]);
      }
    }
  auto args = arguments<EmbeddingGatherBackward>(dtype, s, input, row, 1);
  args.doutput = doutput.data(), args.doutput_row_stride = doutput_row;
  args.padding_idx = padding_idx;
  args.dweight = dweight.data();
  run_everywhere(
      label("backward", dtype, type, s), {&dweight.buffer}, [&] { return run_backward(args); },
      [&] {
        for (int64_t i = 0; i < dweight.count; ++i) {
          // The rounding of a sum of n terms grows like sqrt(n); one more rounding into dtype.
          const double slack =
              epsilon_of(dtype) * std::fabs(sum[i]) +
              epsilon_of(accumulator_of(dtype)) * std::sqrt(terms[i / s.D]) * size[i];
          CHECK(std::fabs(dweight.get(i) - sum[i]) <= slack,
                "dweight[%lld, %lld] got %.9g, want %.9g, slack %g",
                static_cast<long long>(i / s.D), static_cast<long long>(i % s.D), dweight.get(i),
                sum[i], slack);
        }
      });
}

// Puts a bad id at `at` and one at the very end, which must not be the one reported, and runs both
// directions.
void check_bad_id(const Shape& s, int64_t bad, int64_t at) {
  if (left_out(s.N * s.T * s.D)) return;
  Ids input(IndexType::i64, s.N * s.T);
  input.randomize(s.V);
  input.set(at, bad);
  input.set(s.N * s.T - 1, bad);
  Values rows(DType::f32, s.N * s.T * s.D), table(DType::f32, s.V * s.D);
  table.randomize(1);
  auto forward = arguments<EmbeddingGatherForward>(DType::f32, s, input, s.T, 1);
  forward.weight = table.data(), forward.weight_row_stride = s.D;
  forward.output = rows.data();
  int64_t found = run_forward(forward);
  CHECK(found == at, "forward found %lld, want %lld", static_cast<long long>(found),
        static_cast<long long>(at));
  CHECK(rows.buffer.guards_intact(), "forward wrote outside its output");
  rows.randomize(1);
  auto backward = arguments<EmbeddingGatherBackward>(DType::f32, s, input, s.T, 1);
  backward.doutput = rows.data(), backward.doutput_row_stride = s.T * s.D;
  backward.padding_idx = -1;
  backward.dweight = table.data();
  found = run_backward(backward);
  CHECK(found == at, "backward found %lld, want %lld", static_cast<long long>(found),
        static_cast<long long>(at));
  CHECK(table.buffer.guards_intact(), "backward wrote outside its output");
}

}  // namespace

TEST_CASE(forward_copies_the_rows) {
  for (const Shape& s : kShapes)
    for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
      check_forward(dtype, s.N > 1000 ? IndexType::i32 : IndexType::i64, s);
}

TEST_CASE(forward_takes_every_id_type) {
  for (IndexType type : {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64}) {
    check_forward(DType::f32, type, {33, 3, 27, 10});
    check_forward(DType::f32, type, {1000, 2, 1009, 7});
  }
}

TEST_CASE(backward_sums_per_id) {
  for (const Shape& s : kShapes)
    for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
      check_backward(dtype, s.N > 1000 ? IndexType::i32 : IndexType::i64, s, s.T * s.D, -1);
}

TEST_CASE(backward_takes_every_id_type_and_padding) {
  for (IndexType type : {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64})
    for (int64_t padding_idx : {-1, 0, 13}) {
      check_backward(DType::f32, type, {33, 3, 27, 10}, 30, padding_idx);
      check_backward(DType::f32, type, {3000, 3, 1009, 16}, 48, padding_idx);
    }
}

TEST_CASE(backward_reads_rows_at_any_distance) {
  for (int64_t doutput_row : {0, 30, 37})
    check_backward(DType::f32, IndexType::i64, {129, 3, 27, 10}, doutput_row, -1);
}

TEST_CASE(first_bad_id_is_reported_and_nothing_is_written_outside) {
  for (const Shape& s : {Shape{10, 3, 27, 10}, Shape{50000, 3, 27, 10}, Shape{20000, 3, 40000, 4}})
    for (int64_t bad : {int64_t{-1}, s.V, INT64_MIN, INT64_MAX})
      for (int64_t at : {int64_t{0}, s.N * s.T / 2 + 1, s.N * s.T - 1})
        for_each_isa(label("bad id", DType::f32, IndexType::i64, s),
                     [&] { check_bad_id(s, bad, at); });
}
