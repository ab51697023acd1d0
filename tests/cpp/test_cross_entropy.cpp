// cross_entropy against plain loops in long double: ids and probabilities, weights, ignored rows,
// smoothing, reductions, strides, extreme logits, bad targets.
#include <cmath>
#include <limits>
#include <vector>

#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

struct Setting {
  int64_t N, C;
  Reduction reduction = Reduction::mean;
  bool probabilities = false;
  bool weighted = false;
  double smoothing = 0;
  IndexType index_type = IndexType::i64;
  int64_t ignored_every = 0;  // this target in so many is ignore_index; 0: none
  int64_t ignore_index = -100;
  int64_t pad = 0;           // input rows lie C + pad apart
  int64_t dloss_stride = 1;  // for Reduction::none
  double offset = 0;         // added to every logit
};

std::string label(DType dtype, const Setting& s) {
  return format(
      "%s %s N=%lld C=%lld reduction=%d probabilities=%d weighted=%d smoothing=%g "
      "ignore=%lld/%lld pad=%lld offset=%g",
      name_of(dtype), name_of(s.index_type), static_cast<long long>(s.N),
      static_cast<long long>(s.C), static_cast<int>(s.reduction), s.probabilities, s.weighted,
      s.smoothing, static_cast<long long>(s.ignore_index), static_cast<long long>(s.ignored_every),
      static_cast<long long>(s.pad), s.offset);
}

// The arrays of one case and what the formulas of kernels.h make of them.
class Problem {
 public:
  Problem(DType dtype, const Setting& setting);
  int64_t forward();
  int64_t backward();
  void check_forward() const;
  void check_backward() const;

  DType dtype;
  Setting s;
  int64_t row;  // elements from one row of logits to the next
  Values input, probabilities, weight, loss, lse, total_weight, dloss, dinput;
  Ids ids;

 private:
  bool ignored(int64_t n) const { return !s.probabilities && ids.get(n) == s.ignore_index; }
  double weight_of(int64_t c) const { return s.weighted ? weight.get(c) : 1; }
  // The weighted, smoothed target of class c in row n.
  long double q(int64_t n, int64_t c) const;
  template <class Args>
  void fill(Args* args);
  void derive();

  std::vector<long double> want_loss, want_lse, want_dinput;
  std::vector<double> loss_size;  // sum of the sizes of the terms of each loss
  long double want_total_weight = 0;
};

Problem::Problem(DType type, const Setting& setting)
    : dtype(type),
      s(setting),
      row(s.C + s.pad),
      input(type, s.N * row),
      probabilities(type, s.probabilities ? s.N * s.C : 0),
      weight(type, s.C),
      loss(type, s.reduction == Reduction::none ? s.N : 1),
      lse(accumulator_of(type), 2 * s.N),
      total_weight(accumulator_of(type), 1),
      dloss(type, s.reduction == Reduction::none ? s.N * s.dloss_stride + 1 : 1),
      dinput(type, s.N * s.C),
      ids(s.index_type, s.N) {
  input.randomize(4);
  for (int64_t i = 0; i < input.count && s.offset != 0; ++i) input.set(i, input.get(i) + s.offset);
  for (int64_t c = 0; c < s.C; ++c) weight.set(c, 0.25 + uniform());
  for (int64_t i = 0; i < probabilities.count; ++i) probabilities.set(i, 2 * uniform() / s.C);
  dloss.randomize(1);
  const int64_t bound = s.index_type == IndexType::u8 && s.C > 256 ? 256 : s.C;
  ids.randomize(bound);
  for (int64_t n = 0; s.ignored_every && n < s.N; n += s.ignored_every) ids.set(n, s.ignore_index);
  derive();
}

long double Problem::q(int64_t n, int64_t c) const {
  if (ignored(n)) return 0;
  const long double hard = s.probabilities ? probabilities.get(n * s.C + c) : ids.get(n) == c;
  return weight_of(c) * ((1 - s.smoothing) * hard + static_cast<long double>(s.smoothing) / s.C);
}

void Problem::derive() {
  want_lse.resize(2 * s.N);
  want_dinput.resize(s.N * s.C);
  std::vector<long double> losses(s.N);
  std::vector<double> sizes(s.N);
  for (int64_t n = 0; n < s.N; ++n) {
    long double maximum = -std::numeric_limits<long double>::infinity(), sum = 0, all = 0;
    for (int64_t c = 0; c < s.C; ++c)
      maximum = std::fmax(maximum, static_cast<long double>(input.get(n * row + c)));
    for (int64_t c = 0; c < s.C; ++c) sum += std::exp(input.get(n * row + c) - maximum);
    want_lse[n] = maximum;
    want_lse[s.N + n] = std::log(sum);
    if (!ignored(n)) want_total_weight += s.probabilities ? 1 : weight_of(ids.get(n));
    for (int64_t c = 0; c < s.C; ++c) {
      const long double term = q(n, c) * (want_lse[s.N + n] - (input.get(n * row + c) - maximum));
      losses[n] += term;
      sizes[n] += static_cast<double>(
          q(n, c) * (want_lse[s.N + n] + std::fabs(input.get(n * row + c) - maximum)));
      all += q(n, c);
    }
    for (int64_t c = 0; c < s.C; ++c)
      want_dinput[n * s.C + c] =
          std::exp(input.get(n * row + c) - maximum - want_lse[s.N + n]) * all - q(n, c);
  }
  const long double scale = s.reduction == Reduction::mean ? 1 / want_total_weight : 1;
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t c = 0; c < s.C; ++c)
      want_dinput[n * s.C + c] *=
          ignored(n) ? 0
                     : scale * dloss.get(s.reduction == Reduction::none ? n * s.dloss_stride : 0);
  if (s.reduction == Reduction::none) {
    want_loss = losses;
    loss_size = sizes;
    return;
  }
  want_loss.assign(1, 0);
  loss_size.assign(1, 0);
  for (int64_t n = 0; n < s.N; ++n) {
    want_loss[0] += losses[n];
    loss_size[0] += sizes[n];
  }
  want_loss[0] *= scale;
  loss_size[0] *= static_cast<double>(scale);
  if (dtype == DType::f16 && want_loss[0] >= 65520)  // past the largest number of float16
    want_loss[0] = std::numeric_limits<long double>::infinity();
}

template <class Args>
void Problem::fill(Args* args) {
  args->dtype = dtype;
  args->target_is_probability = s.probabilities;
  args->index_type = s.index_type;
  args->N = s.N, args->C = s.C;
  args->input = input.data(), args->input_row_stride = row;
  args->target = s.probabilities ? probabilities.data() : ids.data();
  args->target_row_stride = s.probabilities ? s.C : 1;
  args->weight = s.weighted ? weight.data() : nullptr;
  args->ignore_index = s.ignore_index;
  args->reduction = s.reduction;
  args->label_smoothing = s.smoothing;
}

int64_t Problem::forward() {
  CrossEntropyForward args{};
  fill(&args);
  args.loss = loss.data(), args.lse = lse.data(), args.total_weight = total_weight.data();
  return launch(cpu::cross_entropy_forward, cpu::cross_entropy_forward_workspace, args);
}

int64_t Problem::backward() {
  CrossEntropyBackward args{};
  fill(&args);
  args.dloss = dloss.data();
  args.dloss_stride = s.reduction == Reduction::none ? s.dloss_stride : 0;
  args.lse = lse.data(), args.total_weight = total_weight.data();
  args.dinput = dinput.data();
  return launch(cpu::cross_entropy_backward, cpu::cross_entropy_backward_workspace, args);
}

void check_close(const char* what, int64_t i, double got, long double want, double slack) {
  if (std::isnan(want)) {
    CHECK(std::isnan(got), "%s[%lld] got %g, want NaN", what, static_cast<long long>(i), got);
    return;
  }
  const bool same = got == static_cast<double>(want);  // infinities
  CHECK(same || std::fabs(static_cast<double>(got - want)) <= slack,
        "%s[%lld] got %.9g, want %.9Lg, slack %g", what, static_cast<long long>(i), got, want,
        slack);
}

void Problem::check_forward() const {
  const double eps = epsilon_of(accumulator_of(dtype));
  for (int64_t n = 0; n < s.N; ++n) {
    check_close("lse maximum", n, lse.get(n), want_lse[n], 0);
    check_close("lse", n, lse.get(s.N + n), want_lse[s.N + n],
                eps * (4 + std::sqrt(s.C) / 4 + std::fabs(static_cast<double>(want_lse[s.N + n]))));
  }
  check_close("total_weight", 0, total_weight.get(0), want_total_weight,
              eps * std::sqrt(s.N + 1.0) * static_cast<double>(want_total_weight));
  for (int64_t i = 0; i < loss.count; ++i) {
    const double rounded = epsilon_of(dtype) * std::fabs(loss_size[i]);
    const double slack =
        rounded + eps * (8 + std::sqrt(static_cast<double>(s.C))) * (loss_size[i] + 1);
    check_close("loss", i, loss.get(i), want_loss[i],
                s.reduction == Reduction::sum ? slack * std::sqrt(s.N + 1.0) : slack);
  }
}

void Problem::check_backward() const {
  const double eps = epsilon_of(accumulator_of(dtype));
  double scale = s.reduction == Reduction::mean ? 1 / static_cast<double>(want_total_weight) : 1;
  if (s.weighted) scale *= 1.25;
  for (int64_t n = 0; n < s.N; ++n) {
    const double g =
        scale * std::fabs(dloss.get(s.reduction == Reduction::none ? n * s.dloss_stride : 0));
    for (int64_t c = 0; c < s.C; ++c) {
      const long double want = want_dinput[n * s.C + c];
      // p and q are at most about 2 each and cancel; exp carries the error of its argument.
      const double slack = epsilon_of(dtype) * std::fabs(static_cast<double>(want)) +
                           eps * (16 + std::sqrt(static_cast<double>(s.C))) * g +
                           (dtype == DType::f16 ? 0x1p-24 : 0);
      check_close("dinput", n * s.C + c, dinput.get(n * s.C + c), want, slack);
    }
  }
}

void check(DType dtype, const Setting& setting) {
  Problem problem(dtype, setting);
  run_everywhere(
      "forward " + label(dtype, setting),
      {&problem.loss.buffer, &problem.lse.buffer, &problem.total_weight.buffer},
      [&] { return problem.forward(); }, [&] { problem.check_forward(); });
  run_everywhere(
      "backward " + label(dtype, setting), {&problem.dinput.buffer},
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
              s.pad = C == 27 ? 5 : 0;
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
      for (int64_t i = 0; i < problem.dinput.count; ++i)
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
        for_each_isa(
            format("bad target %lld at %lld of %lld", static_cast<long long>(bad),
                   static_cast<long long>(at), static_cast<long long>(N)),
            [&] {
              Problem problem(DType::f32, {N, 27});
              CHECK(problem.forward() == -1, "all targets are good");
              problem.ids.set(at, bad);
              problem.ids.set(N - 1, bad);
              int64_t found = problem.forward();
              CHECK(found == at, "forward found %lld", static_cast<long long>(found));
              CHECK(problem.loss.buffer.guards_intact() && problem.lse.buffer.guards_intact() &&
                        problem.total_weight.buffer.guards_intact(),
                    "forward wrote outside its outputs");
              found = problem.backward();
              CHECK(found == at, "backward found %lld", static_cast<long long>(found));
              CHECK(problem.dinput.buffer.guards_intact(), "backward wrote outside its output");
            });
}
