// The forward of embedding_gather of csrc/cuda against plain loops: shapes that take each path,
// every dtype and id type, strides and alignments.
#include "embedding_gather_problem.h"

namespace {

void check_forward(DType dtype, IndexType type, const Problem& p) {
  IdTable input(type, p);
  const int64_t lead = lead_of(dtype, p);
  const int64_t row = p.row < 0 ? p.D : p.row;
  Values weight(dtype, lead + (p.V > 0 ? p.V - 1 : 0) * row + p.D),
      output(dtype, lead + p.N * p.T * p.D);
  weight.randomize(4);
  auto args = arguments<EmbeddingGatherForward>(dtype, p, input);
  args.weight = at(weight, lead), args.weight_row_stride = row;
  args.output = at(output, lead);
  run_in_every_order(
      label("forward", dtype, type, p), {&output.buffer},
      [&] {
        return launch(cuda::embedding_gather_forward, cuda::embedding_gather_forward_workspace,
                      args);
      },
      [&] {
        check_untouched(output, lead);
        for (int64_t n = 0; n < p.N; ++n)
          for (int64_t t = 0; t < p.T; ++t)
            for (int64_t d = 0; d < p.D; ++d) {
              const int64_t id = input.get(n, t);
              const double got = output.get(lead + (n * p.T + t) * p.D + d);
              if (id < 0 || id >= p.V) {
                CHECK(std::isnan(got), "output[%lld, %lld] of a bad id is %g",
                      static_cast<long long>(n), static_cast<long long>(t * p.D + d), got);
                continue;
              }
              const double want = weight.get(lead + id * row + d);
              CHECK(got == want, "output[%lld, %lld] got %g, want %g", static_cast<long long>(n),
                    static_cast<long long>(t * p.D + d), got, want);
            }
      });
}

}  // namespace

// Rows of 1 to 4104 bytes: one granule of each size, vectors of many granules, rows of a whole
// chunk and longer, a last vector that is not whole, several groups.
TEST_CASE(forward_copies_the_rows) {
  const Problem problems[] = {
      {0, 3, 27, 10},    {5, 0, 27, 10},    {9, 4, 27, 0},   {1, 1, 1, 1},     {7, 2, 5, 3},
      {32, 3, 27, 10},   {700, 3, 27, 1},   {301, 2, 27, 2}, {513, 3, 27, 5},  {129, 5, 300, 17},
      {257, 3, 100, 64}, {13, 1, 300, 513}, {3, 2, 4, 1024}, {3, 1, 2, 20001}, {2, 1, 2, 16384}};
  for (const Problem& p : problems)
    for (DType dtype : kDTypes)
      if (!quick() || dtype == DType::f32) check_forward(dtype, IndexType::i64, p);
}

TEST_CASE(forward_takes_every_id_type_and_stride) {
  for (IndexType type : kIndexTypes) {
    if (quick() && type != IndexType::i64) continue;
    check_forward(DType::f32, type, {33, 3, 27, 10, Kind::zipf});
    check_forward(DType::f32, type, {100, 2, 1009, 7, Kind::uniform, 7, 3});
    check_forward(DType::f32, type, {100, 3, 27, 10, Kind::uniform, 1, 1});  // sliding windows
    check_forward(DType::f32, type, {50, 4, 27, 10, Kind::uniform, 0, 1});
    check_forward(DType::f32, type, {50, 4, 27, 10, Kind::uniform, 1, 0});
    check_forward(DType::f32, type, {50, 1, 27, 10, Kind::uniform, 5, 9});
  }
}

TEST_CASE(forward_takes_any_alignment_and_table_stride) {
  for (DType dtype : kDTypes)
    for (int64_t D : {1, 10, 64})
      for (int64_t offset : {0, 1, 2, 3, 4})
        for (int64_t pad : {0, 1, 2}) {
          if (quick() && (dtype != DType::bf16 || pad == 2)) continue;
          Problem p{41, 3, 27, D};
          p.row = D + pad, p.offset = offset;
          check_forward(dtype, IndexType::i32, p);
        }
  Problem same{41, 3, 27, 10};
  same.row = 0;  // every row of the table is the same
  check_forward(DType::f32, IndexType::i32, same);
}
