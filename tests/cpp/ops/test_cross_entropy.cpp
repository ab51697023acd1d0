// cross_entropy against plain loops in long double: ids and probabilities, weights, ignored rows,
// smoothing, reductions, strides, extreme logits, bad targets.
#include <cmath>
#include <limits>

#include "cross_entropy_problem.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

constexpr int64_t kExp = 20;  // as so many multiply-adds counts an element

// Arrays begin one element past a 16-byte boundary.
Setting unaligned(Setting s) {
  s.x_at = s.t_at = s.w_at = s.out_at = 1;
  return s;
}

struct Problem : CrossEntropyProblem {
  Problem(DType dtype, const Setting& setting) : CrossEntropyProblem(dtype, unaligned(setting)) {}
  int64_t forward() {
    return launch(cpu::cross_entropy_forward, cpu::cross_entropy_forward_workspace, forward_args());
  }
  int64_t backward() {
    return launch(cpu::cross_entropy_backward, cpu::cross_entropy_backward_workspace,
                  backward_args());
  }
};

void check(DType dtype, const Setting& setting) {
  if (left_out(kExp * setting.N * setting.C)) return;
  Problem problem(dtype, setting);
  run_everywhere(
      "forward " + label(dtype, setting),
      {&problem.loss.buffer, &problem.lse.buffer, &problem.total_weight.buffer},
      [&] { return problem.forward(); }, [&] { problem.check_forward(); });
  run_everywhere(
      "backward " + label(dtype, setting), {&problem.dinput.values.buffer},
      [&] { return problem.backward(); }, [&] { problem.check_backward(); });
}

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
constexpr Reduction kReductions[] = {Reduction::none, Reduction::mean, Reduction::sum};

}  // namespace

// One class, the lecture's 27, around the vector widths, a prime, wide rows, and enough rows for
// the parallel path.
TEST_CASE(ids_equal_the_formula) {
  const int64_t shapes[][2] = {{1, 1},  {3, 2},    {32, 27},  {7, 15},    {5, 16},     {5, 17},
                               {4, 33}, {17, 257}, {9, 1031}, {2, 20011}, {20000, 27}, {300, 1000}};
  for (const auto& shape : shapes)
    for (DType dtype : kDTypes)
      for (Reduction reduction : kReductions) {
        Setting s{shape[0], shape[1]};
        s.reduction = reduction;
        check(dtype, s);
      }
}

TEST_CASE(every_option_equals_the_formula) {
  for (DType dtype : kDTypes)
    for (Reduction reduction : kReductions)
      for (bool probabilities : {false, true})
        for (bool weighted : {false, true})
          for (double smoothing : {0.0, 0.1, 1.0})
            for (int64_t C : {27, 131}) {
              Setting s{33, C};
              s.reduction = reduction;
              s.probabilities = probabilities;
              s.weighted = weighted;
              s.smoothing = smoothing;
              s.ignored_every = probabilities ? 0 : 5;
              if (C == 27) s.row = C + 5;
              check(dtype, s);
            }
}

TEST_CASE(every_id_type_and_any_ignored_id) {
  for (IndexType type : {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64})
    for (int64_t ignore_index : {0, 7, 255, -1, -100}) {
      if (type == IndexType::u8 && ignore_index < 0) continue;
      for (int64_t N : {33, 5000}) {
        Setting s{N, 27};
        s.index_type = type;
        s.ignore_index = ignore_index;
        s.ignored_every = 3;
        check(DType::f32, s);
      }
    }
}

TEST_CASE(all_rows_ignored_give_nan_mean_and_zero_sum) {
  for (Reduction reduction : kReductions)
    for_each_isa("all ignored", [&] {
      Setting s{6, 27};
      s.reduction = reduction;
      s.ignored_every = 1;
      Problem problem(DType::f32, s);
      CHECK(problem.forward() == -1, "an ignored target is no offender");
      const double got = problem.loss.get(0);
      CHECK(reduction == Reduction::mean ? std::isnan(got) : got == 0, "loss is %g", got);
      CHECK(problem.backward() == -1, "an ignored target is no offender");
      for (int64_t i = 0; i < problem.dinput.count(); ++i)
        CHECK(problem.dinput.get(i) == 0, "dinput[%lld] is %g", static_cast<long long>(i),
              problem.dinput.get(i));
    });
}

TEST_CASE(empty_batch) {
  for (Reduction reduction : kReductions)
    for_each_isa("empty batch", [&] {
      Setting s{0, 27};
      s.reduction = reduction;
      Problem problem(DType::f32, s);
      CHECK(problem.forward() == -1, "no rows, no offender");
      if (reduction == Reduction::mean)
        CHECK(std::isnan(problem.loss.get(0)), "mean is %g", problem.loss.get(0));
      if (reduction == Reduction::sum)
        CHECK(problem.loss.get(0) == 0, "sum is %g", problem.loss.get(0));
      CHECK(problem.backward() == -1, "no rows, no offender");
    });
}

TEST_CASE(large_common_offsets_lose_nothing) {
  for (double offset : {1e4, -3e4, 1e6}) {
    Setting s{33, 27};
    s.offset = offset;
    check(DType::f32, s);
    check(DType::f64, s);
  }
}

TEST_CASE(a_broadcast_gradient_has_stride_zero) {
  for (int64_t stride : {0, 3}) {
    Setting s{33, 27};
    s.reduction = Reduction::none;
    s.dloss_stride = stride;
    check(DType::f32, s);
  }
}

TEST_CASE(infinite_logits) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for_each_isa("infinite logits", [&] {
      const double inf = std::numeric_limits<double>::infinity();
      Setting s{4, 19};
      s.reduction = Reduction::none;
      Problem problem(dtype, s);
      for (int64_t n = 0; n < 4; ++n) problem.ids.set(n, 3);
      for (int64_t c = 0; c < 19; ++c) {
        problem.input.set(0 * 19 + c, c == 3 || c == 8 ? 1 : -inf);  // two classes left
        problem.input.set(1 * 19 + c, c == 3 ? -inf : 0);            // an impossible target
        problem.input.set(2 * 19 + c, -inf);
        problem.input.set(3 * 19 + c, c == 18 ? NAN : 0);
      }
      CHECK(problem.forward() == -1, "no offender");
      const double eps = epsilon_of(dtype);
      CHECK(std::fabs(problem.loss.get(0) - std::log(2.0)) <= 2 * eps, "loss[0] is %.9g",
            problem.loss.get(0));
      CHECK(problem.loss.get(1) == inf, "loss[1] is %g", problem.loss.get(1));
      CHECK(std::isnan(problem.loss.get(2)), "loss[2] is %g", problem.loss.get(2));
      CHECK(std::isnan(problem.loss.get(3)), "loss[3] is %g", problem.loss.get(3));
      CHECK(problem.backward() == -1, "no offender");
      const double g = problem.dloss.get(0);
      for (int64_t c = 0; c < 19; ++c) {
        const double want = c == 3 ? -g / 2 : c == 8 ? g / 2 : 0;
        CHECK(std::fabs(problem.dinput.get(c) - want) <= 2 * eps, "dinput[0, %lld] is %g, want %g",
              static_cast<long long>(c), problem.dinput.get(c), want);
        CHECK(std::isnan(problem.dinput.get(2 * 19 + c)), "dinput[2, %lld] is %g",
              static_cast<long long>(c), problem.dinput.get(2 * 19 + c));
      }
    });
}

TEST_CASE(first_bad_target_is_reported_and_nothing_is_written_outside) {
  for (int64_t N : {10, 30000})
    for (int64_t bad : {int64_t{-1}, int64_t{27}, INT64_MIN, INT64_MAX})
      for (int64_t at : {int64_t{0}, N / 2 + 1, N - 1})
        for_each_isa(format("bad target %lld at %lld of %lld", static_cast<long long>(bad),
                            static_cast<long long>(at), static_cast<long long>(N)),
                     [&] {
                       if (left_out(kExp * N * 27)) return;
                       Problem problem(DType::f32, {N, 27});
                       CHECK(problem.forward() == -1, "all targets are good");
                       problem.ids.set(at, bad);
                       problem.ids.set(N - 1, bad);
                       int64_t found = problem.forward();
                       CHECK(found == at, "forward found %lld", static_cast<long long>(found));
                       CHECK(problem.loss.buffer.guards_intact() &&
                                 problem.lse.buffer.guards_intact() &&
                                 problem.total_weight.buffer.guards_intact(),
                             "forward wrote outside its outputs");
                       found = problem.backward();
                       CHECK(found == at, "backward found %lld", static_cast<long long>(found));
                       CHECK(problem.dinput.values.buffer.guards_intact(),
                             "backward wrote outside its output");
                     });
}
