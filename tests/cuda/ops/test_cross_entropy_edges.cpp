// cross_entropy of csrc/cuda: ids of every type, ignored and bad targets, empty batches, extreme
// logits.
#include <cmath>
#include <limits>

#include "cross_entropy_runs.h"

namespace mlpkern::cuda {
cudaError_t cross_entropy_take_bad_id(BadId* bad);
}

namespace {

void no_bad_id() {
  cuda::BadId bad{};
  CHECK(cuda::cross_entropy_take_bad_id(&bad) == cudaSuccess && bad.op == cuda::BadIdOp::none,
        "a bad target was recorded, all are good");
}

}  // namespace

TEST_CASE(every_id_type_and_any_ignored_id) {
  for (IndexType type : {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64})
    for (int64_t ignore_index : {0, 7, 255, -1, -100, 30000}) {
      if (type == IndexType::u8 && (ignore_index < 0 || ignore_index > 255)) continue;
      if (quick() && ignore_index != 7) continue;
      for (int64_t C : {27, 300}) {
        Setting s{33, C};
        s.index_type = type;
        s.ignore_index = ignore_index;
        s.ignored_every = 3;
        check(DType::f32, s);
      }
    }
  no_bad_id();
}

// uint8 156 is not the ignore_index -100.
TEST_CASE(an_ignored_id_outside_its_type_ignores_nothing) {
  Setting s{5, 200};
  s.index_type = IndexType::u8;
  Problem problem(DType::f32, s);
  problem.ids.set(0, 156);
  problem.derive();
  run_in_every_order(
      "156", {&problem.loss.buffer}, [&] { return problem.forward(); },
      [&] { problem.check_forward(); });
}

// The memory before the logits of the first row and before the class weights is guarded. In
// float64, because a read of eight bytes there is reported.
TEST_CASE(an_ignored_target_reads_nothing_before_its_row) {
  for (int64_t C : {27, 300, 2100, 9000}) {
    Setting s{3, C};
    s.ignored_every = 3;
    s.weighted = true;
    s.x_at = s.w_at = 1;
    check(DType::f64, s);
  }
}

TEST_CASE(all_rows_ignored_give_nan_mean_and_zero_sum) {
  for (int64_t C : {27, 300})
    for (Reduction reduction : kReductions) {
      Setting s{6, C};
      s.reduction = reduction;
      s.ignored_every = 1;
      Problem problem(DType::f32, s);
      for (int64_t i = 0; i < C; ++i) problem.input.set(i, NAN);
      CHECK(problem.forward() == 0 && problem.backward() == 0, "no launch may fail");
      const double got = problem.loss.get(0);
      CHECK(reduction == Reduction::mean ? std::isnan(got) : got == 0, "loss is %g", got);
      CHECK(problem.total_weight.get(0) == 0, "total_weight is %g", problem.total_weight.get(0));
      for (int64_t i = 0; i < problem.dinput.count(); ++i)
        CHECK(problem.dinput.get(i) == 0, "dinput[%lld] is %g", static_cast<long long>(i),
              problem.dinput.get(i));
    }
}

TEST_CASE(empty_batch) {
  for (int64_t C : {27, 300, 100000})
    for (Reduction reduction : kReductions) {
      Setting s{0, C};
      s.reduction = reduction;
      Problem problem(DType::f32, s);
      CHECK(problem.forward() == 0 && problem.backward() == 0, "no launch may fail");
      CHECK(problem.total_weight.get(0) == 0, "total_weight is %g", problem.total_weight.get(0));
      if (reduction == Reduction::mean)
        CHECK(std::isnan(problem.loss.get(0)), "mean is %g", problem.loss.get(0));
      if (reduction == Reduction::sum)
        CHECK(problem.loss.get(0) == 0, "sum is %g", problem.loss.get(0));
    }
}

TEST_CASE(large_offsets_and_scales_lose_nothing) {
  for (int64_t C : {27, 300, 1030})
    for (double offset : {1e4, -3e4, 1e6})
      for (DType dtype : {DType::f32, DType::f64}) {
        Setting s{9, C};
        s.offset = offset;
        s.smoothing = C == 300 ? 0.2 : 0;
        check(dtype, s);
      }
  Setting s{9, 1030};
  s.scale = 80;
  check(DType::f32, s);
  check(DType::bf16, s);
}

TEST_CASE(a_gradient_with_any_stride) {
  for (int64_t stride : {0, 3})
    for (int64_t C : {27, 300}) {
      Setting s{33, C};
      s.reduction = Reduction::none;
      s.dloss_stride = stride;
      check(DType::f32, s);
    }
}

TEST_CASE(infinite_and_missing_logits) {
  const double inf = std::numeric_limits<double>::infinity();
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (int64_t C : {19, 290, 2100, 9000}) {
      if (C == 9000 && dtype != DType::f64) continue;  // in pieces
      Setting s{6, C};
      s.reduction = Reduction::none;
      Problem problem(dtype, s);
      const double lowest = dtype == DType::f64 ? -1.7e308 : -3.3e38;
      for (int64_t n = 0; n < 6; ++n) problem.ids.set(n, 3);
      for (int64_t c = 0; c < C; ++c) {
        problem.input.set(0 * C + c, c == 3 || c == C - 1 ? 1 : -inf);  // two classes left
        problem.input.set(1 * C + c, c == 3 ? -inf : 0);                // an impossible target
        problem.input.set(2 * C + c, -inf);
        problem.input.set(3 * C + c, c == C - 1 ? NAN : 0);
        problem.input.set(4 * C + c, c == C - 1 ? inf : 0);
        problem.input.set(5 * C + c, lowest);  // a usual way to mask
      }
      run_in_every_order(
          format("infinite %s C=%lld", name_of(dtype), static_cast<long long>(C)),
          {&problem.loss.buffer, &problem.dinput.values.buffer},
          [&] {
            const int error = problem.forward();
            return error ? error : problem.backward();
          },
          [&] {
            const double eps = epsilon_of(dtype), g = problem.dloss.get(0);
            const double want[] = {std::log(2.0), inf, NAN,
                                   NAN,           NAN, std::log(static_cast<double>(C))};
            for (int n = 0; n < 6; ++n) {
              const double got = problem.loss.get(n);
              CHECK(std::isnan(want[n]) ? std::isnan(got)
                                        : got == want[n] || std::fabs(got - want[n]) <= 8 * eps,
                    "loss[%d] is %.9g", n, got);
            }
            CHECK(std::isnan(problem.lse.get(6 + 2)), "log of the sum of no number is %g",
                  problem.lse.get(6 + 2));
            for (int64_t c = 0; c < C; ++c) {
              const double first = c == 3 ? -g / 2 : c == C - 1 ? g / 2 : 0;
              CHECK(std::fabs(problem.dinput.get(c) - first) <= 2 * eps,
                    "dinput[0, %lld] is %g, want %g", static_cast<long long>(c),
                    problem.dinput.get(c), first);
              for (int n = 2; n < 5; ++n)
                CHECK(std::isnan(problem.dinput.get(n * C + c)), "dinput[%d, %lld] is %g", n,
                      static_cast<long long>(c), problem.dinput.get(n * C + c));
            }
          });
    }
}

TEST_CASE(a_bad_target_makes_its_row_nan_and_is_recorded) {
  for (int64_t C : {27, 300, 9000})
    for (int64_t bad : {int64_t{-1}, C, INT64_MIN, INT64_MAX})
      for (Reduction reduction : kReductions) {
        if (C > 27 && static_cast<int>(reduction) != (bad & 3) % 3) continue;
        if (quick() && bad != -1 && bad != C) continue;
        Setting s{10, C};
        s.reduction = reduction;
        s.ignored_every = 4;
        s.smoothing = bad == C ? 0.1 : 0;
        Problem problem(DType::f64, s);
        problem.ids.set(7, bad);
        problem.derive();
        const auto recorded = [&](const char* what) {
          cuda::BadId id{};
          CHECK(cuda::cross_entropy_take_bad_id(&id) == cudaSuccess &&
                    id.op == cuda::BadIdOp::cross_entropy && id.position == 7 && id.value == bad &&
                    id.bound == C && id.ignored == -100 && id.shape.ndim == 1 &&
                    id.shape.size[0] == 10,
                "%s recorded op %d position %lld value %lld", what, static_cast<int>(id.op),
                static_cast<long long>(id.position), static_cast<long long>(id.value));
        };
        run_in_every_order(
            format("bad target %lld C=%lld", static_cast<long long>(bad),
                   static_cast<long long>(C)),
            {&problem.loss.buffer, &problem.lse.buffer, &problem.dinput.values.buffer},
            [&] {
              const int error = problem.forward();
              recorded("forward");
              if (error) return error;
              const int second = problem.backward();
              recorded("backward");
              return second;
            },
            [&] {
              problem.check_forward();
              problem.check_backward();
            });
      }
  no_bad_id();
}
