// The two methods of the backward of embedding_gather of csrc/cuda against plain loops, and bad ids
// in both directions.
#include <limits>
#include <vector>

#include "embedding_gather_problem.h"

namespace mlpkern::cuda {
cudaError_t embedding_gather_take_bad_id(BadId* bad);
}

namespace {

void run_backward(DType dtype, IndexType type, const Problem& p, IdTable& input) {
  const int64_t row = p.row < 0 ? p.T * p.D : p.row;
  const int64_t lead = lead_of(dtype, p);
  Values doutput(dtype, lead + (p.N > 0 ? p.N - 1 : 0) * row + p.T * p.D);
  Values dweight(dtype, lead + p.V * p.D);
  doutput.randomize(1);
  const auto dy = doutput.doubles();
  std::vector<long double> sum(p.V * p.D);
  std::vector<double> size(p.V * p.D);
  std::vector<int64_t> terms(p.V);
  for (int64_t n = 0; n < p.N; ++n)
    for (int64_t t = 0; t < p.T; ++t) {
      const int64_t v = input.get(n, t);
      if (v == p.padding_idx || v < 0 || v >= p.V) continue;
      ++terms[v];
      for (int64_t d = 0; d < p.D; ++d) {
        const double x = dy[lead + n * row + t * p.D + d];
        sum[v * p.D + d] += x;
        size[v * p.D + d] += std::fabs(x);
      }
    }
  auto args = arguments<EmbeddingGatherBackward>(dtype, p, input);
  args.doutput = at(doutput, lead), args.doutput_row_stride = row;
  args.padding_idx = p.padding_idx;
  args.dweight = at(dweight, lead);
  run_in_every_order(
      label("backward", dtype, type, p), {&dweight.buffer},
      [&] {
        return launch(cuda::embedding_gather_backward, cuda::embedding_gather_backward_workspace,
                      args);
      },
      [&] {
        check_untouched(dweight, lead);
        for (int64_t i = 0; i < p.V * p.D; ++i) {
          // The rounding of a sum of n terms grows like sqrt(n); one more rounding into dtype.
          const double got = dweight.get(lead + i), want = static_cast<double>(sum[i]);
          const double slack =
              epsilon_of(dtype) * std::fabs(want) +
              epsilon_of(accumulator_of(dtype)) * std::sqrt(terms[i / p.D]) * size[i];
          CHECK(std::fabs(got - want) <= slack, "dweight[%lld, %lld] got %.9g, want %.9g, slack %g",
                static_cast<long long>(i / p.D), static_cast<long long>(i % p.D), got, want, slack);
        }
      });
}

void check_backward(DType dtype, IndexType type, const Problem& p) {
  IdTable input(type, p);
  run_backward(dtype, type, p, input);
}

// Takes the record of a bad id.
cuda::BadId take() {
  cuda::BadId bad{};
  const int error = cuda::embedding_gather_take_bad_id(&bad);
  CHECK(error == 0, "CUDA error %d", error);
  return bad;
}

void check_record(const Problem& p, const IdTable& input, const std::vector<int64_t>& bad) {
  const cuda::BadId record = take();
  CHECK(record.op == cuda::BadIdOp::embedding_gather, "op %d", static_cast<int>(record.op));
  bool known = false;
  for (int64_t position : bad)
    known |=
        position == record.position && input.get(position / p.T, position % p.T) == record.value;
  CHECK(known, "recorded position %lld, value %lld", static_cast<long long>(record.position),
        static_cast<long long>(record.value));
  CHECK(record.bound == p.V && record.shape.ndim == 2 && record.shape.size[0] == p.N &&
            record.shape.size[1] == p.T,
        "recorded bound %lld", static_cast<long long>(record.bound));
  CHECK(take().op == cuda::BadIdOp::none, "a record was taken twice");
}

}  // namespace

// The table is small for the first, large for the last. Pieces of one and of many batches, one
// piece and several, more columns than a block has threads, rows of odd length.
TEST_CASE(backward_sums_per_id) {
  const Problem problems[] = {
      {0, 3, 27, 10},    {5, 0, 27, 10},     {9, 4, 27, 0},     {1, 1, 1, 1},     {500, 1, 1, 1},
      {7, 2, 5, 3},      {32, 3, 27, 10},    {400, 3, 27, 10},  {40, 3, 128, 7},  {60, 2, 27, 64},
      {300, 1, 250, 10}, {20, 3, 27, 513},   {9, 2, 5, 1024},   {700, 3, 3, 2},   {1, 1, 300, 1},
      {200, 3, 257, 10}, {257, 3, 1009, 64}, {33, 3, 400, 513}, {900, 3, 300, 1}, {50, 2, 1000, 8},
      {5, 2, 70000, 1}};
  for (const Problem& p : problems)
    for (DType dtype : kDTypes)
      if (!quick() || dtype == DType::f32) check_backward(dtype, IndexType::i64, p);
}

TEST_CASE(backward_takes_every_id_type_and_padding) {
  for (IndexType type : kIndexTypes)
    for (int64_t padding_idx : {-1, 0, 13}) {
      if (quick() && (type != IndexType::i64 || padding_idx != 13)) continue;
      Problem small{33, 3, 27, 10}, large{300, 3, 1009, 16};
      small.padding_idx = large.padding_idx = padding_idx;
      check_backward(DType::f32, type, small);
      check_backward(DType::f32, type, large);
    }
}

// Ids that cross the pieces of a team and the tiles of a block, once and many times.
TEST_CASE(backward_takes_any_distribution) {
  for (Kind kind : {Kind::one, Kind::zipf})
    for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      if (quick() && dtype != DType::f32) continue;
      check_backward(dtype, IndexType::i32, {1000, 3, 27, 10, kind});
      check_backward(dtype, IndexType::i32, {1000, 3, 1000, 64, kind});
      check_backward(dtype, IndexType::i32, {3000, 1, 1000, 1, kind});
      check_backward(dtype, IndexType::i32, {500, 2, 300, 130, kind});
      check_backward(dtype, IndexType::i32, {1024, 1, 200, 64, kind});  // an odd number of passes
      check_backward(dtype, IndexType::i32, {4096, 1, 600, 16, kind});  // whole tiles
    }
  for (Kind kind : {Kind::uniform, Kind::one, Kind::zipf})  // pieces of more rows than a batch
    if (!quick() || kind == Kind::zipf)
      check_backward(DType::f32, IndexType::i32, {1100, 1, 300, 4096, kind});
  Problem padded{1000, 3, 1000, 64, Kind::one};
  padded.padding_idx = 500;
  check_backward(DType::f32, IndexType::i32, padded);
}

TEST_CASE(backward_takes_any_stride_and_alignment) {
  for (int64_t V : {27, 500})
    for (DType dtype : kDTypes)
      for (int64_t D : {1, 10, 16})
        for (int64_t offset : {0, 1, 2, 3, 4})
          for (int64_t pad : {-3 * D, int64_t{0}, int64_t{1}, int64_t{2}}) {
            if (quick() && (dtype != DType::bf16 || pad == 2 || offset == 2)) continue;
            Problem p{129, 3, V, D, Kind::uniform, 11, 3};
            p.row = 3 * D + pad, p.offset = offset;
            check_backward(dtype, IndexType::i64, p);
          }
  for (int64_t V : {27, 500}) {
    check_backward(DType::f32, IndexType::i64, {200, 3, V, 10, Kind::uniform, 1, 1});
    check_backward(DType::f32, IndexType::i64, {4, 300, V, 10, Kind::uniform, 700, 2});

    check_backward(DType::f32, IndexType::i64, {50, 4, V, 10, Kind::uniform, 0, 1});
    check_backward(DType::f32, IndexType::i64, {50, 4, V, 10, Kind::uniform, 1, 0});
    check_backward(DType::f32, IndexType::i64, {50, 1, V, 10, Kind::uniform, 5, 9});
  }
}

TEST_CASE(bad_ids_become_nan_count_for_nothing_and_are_recorded) {
  take();
  for (int64_t V : {int64_t{0}, int64_t{27}, int64_t{100}, int64_t{5000}})
    for (IndexType type : {IndexType::i16, IndexType::i32, IndexType::i64})
      for (int64_t value : {int64_t{-1}, V, V + 1, std::numeric_limits<int64_t>::min(),
                            std::numeric_limits<int64_t>::max()}) {
        const bool wide = value < -1 || value > V + 1;
        if (wide && type != IndexType::i64) continue;
        if (quick() && (type != IndexType::i64 || V == 100)) continue;
        const Problem p{150, 3, V, 10};
        IdTable input(type, p);
        std::vector<int64_t> bad;
        for (int64_t i = 0; i < p.N * p.T; ++i)
          if (V == 0 || i % 149 == 2) {
            input.ids.set(i, value);
            bad.push_back(i);
          }
        const int64_t lead = lead_of(DType::f32, p);
        Values weight(DType::f32, lead + V * p.D), output(DType::f32, lead + p.N * p.T * p.D);
        weight.randomize(1);
        auto args = arguments<EmbeddingGatherForward>(DType::f32, p, input);
        args.weight = at(weight, lead), args.weight_row_stride = p.D;
        args.output = at(output, lead);
        run_in_every_order(
            label("bad ids, forward", DType::f32, type, p), {&output.buffer},
            [&] {
              return launch(cuda::embedding_gather_forward,
                            cuda::embedding_gather_forward_workspace, args);
            },
            [&] {
              for (int64_t i = 0; i < p.N * p.T * p.D; ++i) {
                const int64_t id = input.ids.get(i / p.D);
                const double got = output.get(lead + i);
                if (id < 0 || id >= V)
                  CHECK(std::isnan(got), "element %lld of a bad row is %g",
                        static_cast<long long>(i), got);
                else
                  CHECK(got == weight.get(lead + id * p.D + i % p.D), "element %lld is %g",
                        static_cast<long long>(i), got);
              }
            });
        check_record(p, input, bad);
        run_backward(DType::f32, type, p, input);
        check_record(p, input, bad);
      }
}
