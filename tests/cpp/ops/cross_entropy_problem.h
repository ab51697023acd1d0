// One call of cross_entropy: its arrays in the given layout, and the formulas of kernels.h in long
// double. The tests of csrc/cpu and of csrc/cuda add the launches.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "testing.h"

namespace mlpkern::testing {

struct Setting {
  int64_t N, C;
  Reduction reduction = Reduction::mean;
  bool probabilities = false;
  bool weighted = false;
  double smoothing = 0;
  IndexType index_type = IndexType::i64;
  int64_t ignored_every = 0;  // one target in this many is ignore_index; 0: none
  int64_t ignore_index = -100;
  int64_t row = -1;              // from one row of logits to the next; -1: C
  int64_t target_row = -1;       // the same of the targets; -1: adjacent
  int64_t dloss_stride = 1;      // for Reduction::none
  int64_t x_at = 0, t_at = 0;    // elements past a 16-byte boundary at which logits, probabilities,
  int64_t w_at = 0, out_at = 0;  // class weights and gradients begin
  double offset = 0, scale = 4;  // logits are within `scale` of `offset`
};

inline std::string label(DType dtype, const Setting& s) {
  const auto n = [](int64_t x) { return static_cast<long long>(x); };
  return format(
      "%s %s N=%lld C=%lld reduction=%d probabilities=%d weighted=%d smoothing=%g "
      "ignore=%lld/%lld rows %lld %lld dloss %lld phases %lld %lld %lld %lld offset=%g scale=%g",
      name_of(dtype), name_of(s.index_type), n(s.N), n(s.C), static_cast<int>(s.reduction),
      s.probabilities, s.weighted, s.smoothing, n(s.ignore_index), n(s.ignored_every), n(s.row),
      n(s.target_row), n(s.dloss_stride), n(s.x_at), n(s.t_at), n(s.w_at), n(s.out_at), s.offset,
      s.scale);
}

// `count` values that begin `at` elements past a 16-byte boundary.
class Slice {
 public:
  Slice(DType dtype, int64_t count, int64_t at)
      : values(dtype, count + lead(dtype, at)), first(lead(dtype, at)) {}
  double get(int64_t i) const { return values.get(first + i); }
  void set(int64_t i, double x) { values.set(first + i, x); }
  int64_t count() const { return values.count - first; }
  void* data() {
    return static_cast<unsigned char*>(values.data()) + first * item_size(values.dtype);
  }
  bool lead_untouched() const {
    for (int64_t i = 0; i < first; ++i)
      if (!std::isnan(values.get(i))) return false;
    return true;
  }

  Values values;

 private:
  // Values begin one element past a boundary.
  static int64_t lead(DType dtype, int64_t at) {
    const auto items = static_cast<int64_t>(16 / item_size(dtype));
    return (at + items - 1) % items;
  }
  int64_t first;
};

class CrossEntropyProblem {
 public:
  CrossEntropyProblem(DType dtype, const Setting& setting);
  CrossEntropyForward forward_args();  // without a workspace
  CrossEntropyBackward backward_args();
  void derive();  // again, after a change of the inputs
  void check_forward() const;
  void check_backward() const;

  DType dtype;
  Setting s;
  int64_t row, target_row;
  Slice input, probabilities, weight, dinput;
  Values loss, lse, total_weight, dloss;
  Ids ids;

  bool ignored(int64_t n) const { return !s.probabilities && id(n) == s.ignore_index; }
  bool bad(int64_t n) const {
    return !s.probabilities && !ignored(n) && (id(n) < 0 || id(n) >= s.C);
  }
  int64_t id(int64_t n) const { return ids.get(n * target_row); }

 private:
  double x(int64_t n, int64_t c) const { return input.get(n * row + c); }
  double weight_of(int64_t c) const { return s.weighted ? weight.get(c) : 1; }
  // The weighted, smoothed target of class c in row n.
  long double q(int64_t n, int64_t c) const;
  template <class Args>
  void fill(Args* args);

  std::vector<long double> want_loss, want_lse, want_dinput;
  std::vector<double> loss_size;  // sum of the sizes of the terms of each loss
  long double want_total_weight = 0;
};

inline CrossEntropyProblem::CrossEntropyProblem(DType type, const Setting& setting)
    : dtype(type),
      s(setting),
      row(s.row < 0 ? s.C : s.row),
      target_row(s.target_row >= 0 ? s.target_row
                 : s.probabilities ? s.C
                                   : 1),
      input(type, s.N ? (s.N - 1) * row + s.C : 0, s.x_at),
      probabilities(type, s.probabilities && s.N ? (s.N - 1) * target_row + s.C : 0, s.t_at),
      weight(type, s.C, s.w_at),
      dinput(type, s.N * s.C, s.out_at),
      loss(type, s.reduction == Reduction::none ? s.N : 1),
      lse(accumulator_of(type), 2 * s.N),
      total_weight(accumulator_of(type), 1),
      dloss(type, s.reduction == Reduction::none ? s.N * s.dloss_stride + 1 : 1),
      ids(s.index_type, s.probabilities ? 0 : s.N * target_row + 1) {
  input.values.randomize(s.scale);
  for (int64_t i = 0; i < input.count() && s.offset != 0; ++i)
    input.set(i, input.get(i) + s.offset);
  for (int64_t c = 0; c < s.C; ++c) weight.set(c, 0.25 + uniform());
  for (int64_t i = 0; i < probabilities.count(); ++i)
    probabilities.set(i, 2 * uniform() / static_cast<double>(s.C));
  dloss.randomize(1);
  const int64_t most = s.index_type == IndexType::u8    ? 256
                       : s.index_type == IndexType::i16 ? 32767
                                                        : s.C;
  ids.randomize(most < s.C ? most : s.C);
  for (int64_t n = 0; s.ignored_every && n < s.N; n += s.ignored_every)
    ids.set(n * target_row, s.ignore_index);
  derive();
}

inline long double CrossEntropyProblem::q(int64_t n, int64_t c) const {
  if (ignored(n)) return 0;
  const long double hard = s.probabilities ? probabilities.get(n * target_row + c) : id(n) == c;
  return weight_of(c) * ((1 - s.smoothing) * hard + static_cast<long double>(s.smoothing) / s.C);
}

inline void CrossEntropyProblem::derive() {
  want_lse.assign(2 * s.N, 0);
  want_dinput.assign(s.N * s.C, 0);
  want_total_weight = 0;
  std::vector<long double> losses(s.N);
  std::vector<double> sizes(s.N);
  for (int64_t n = 0; n < s.N; ++n) {
    long double maximum = -std::numeric_limits<long double>::infinity(), sum = 0, all = 0;
    for (int64_t c = 0; c < s.C; ++c)
      maximum = std::fmax(maximum, static_cast<long double>(x(n, c)));
    for (int64_t c = 0; c < s.C; ++c) sum += std::exp(x(n, c) - maximum);
    want_lse[n] = maximum;
    want_lse[s.N + n] = std::log(sum);
    if (bad(n)) {
      losses[n] = std::numeric_limits<long double>::quiet_NaN();
      for (int64_t c = 0; c < s.C; ++c) want_dinput[n * s.C + c] = losses[n];
      continue;
    }
    if (!ignored(n)) want_total_weight += s.probabilities ? 1 : weight_of(id(n));
    for (int64_t c = 0; c < s.C; ++c) {
      const long double target = q(n, c);
      losses[n] += target * (want_lse[s.N + n] - (x(n, c) - maximum));
      sizes[n] += static_cast<double>(target * (want_lse[s.N + n] + std::fabs(x(n, c) - maximum)));
      all += target;
    }
    for (int64_t c = 0; c < s.C; ++c)
      want_dinput[n * s.C + c] = std::exp(x(n, c) - maximum - want_lse[s.N + n]) * all - q(n, c);
  }
  const long double scale = s.reduction == Reduction::mean ? 1 / want_total_weight : 1;
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t c = 0; c < s.C && !bad(n); ++c)
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
void CrossEntropyProblem::fill(Args* args) {
  args->dtype = dtype;
  args->target_is_probability = s.probabilities;
  args->index_type = s.index_type;
  args->N = s.N, args->C = s.C;
  args->input = input.data(), args->input_row_stride = row;
  args->target = s.probabilities ? probabilities.data() : ids.data();
  args->target_row_stride = target_row;
  args->weight = s.weighted ? weight.data() : nullptr;
  args->ignore_index = s.ignore_index;
  args->reduction = s.reduction;
  args->label_smoothing = s.smoothing;
}

inline CrossEntropyForward CrossEntropyProblem::forward_args() {
  CrossEntropyForward args{};
  fill(&args);
  args.loss = loss.data(), args.lse = lse.data(), args.total_weight = total_weight.data();
  return args;
}

inline CrossEntropyBackward CrossEntropyProblem::backward_args() {
  CrossEntropyBackward args{};
  fill(&args);
  args.dloss = dloss.data();
  args.dloss_stride = s.reduction == Reduction::none ? s.dloss_stride : 0;
  args.lse = lse.data(), args.total_weight = total_weight.data();
  args.dinput = dinput.data();
  return args;
}

inline void check_close(const char* what, int64_t i, double got, long double want, double slack) {
  if (std::isnan(want)) {
    CHECK(std::isnan(got), "%s[%lld] got %g, want NaN", what, static_cast<long long>(i), got);
    return;
  }
  const bool same = got == static_cast<double>(want);  // infinities
  CHECK(same || std::fabs(static_cast<double>(got - want)) <= slack,
        "%s[%lld] got %.9g, want %.9Lg, slack %g", what, static_cast<long long>(i), got, want,
        slack);
}

inline void CrossEntropyProblem::check_forward() const {
  const double eps = epsilon_of(accumulator_of(dtype)), root = std::sqrt(static_cast<double>(s.C));
  for (int64_t n = 0; n < s.N; ++n) {
    check_close("lse maximum", n, lse.get(n), want_lse[n], 0);
    check_close("lse", n, lse.get(s.N + n), want_lse[s.N + n],
                eps * (4 + root / 4 + std::fabs(static_cast<double>(want_lse[s.N + n]))));
  }
  check_close("total_weight", 0, total_weight.get(0), want_total_weight,
              eps * std::sqrt(s.N + 1.0) * static_cast<double>(want_total_weight));
  for (int64_t i = 0; i < loss.count; ++i) {
    const double rounded = epsilon_of(dtype) * std::fabs(loss_size[i]);
    const double slack = rounded + eps * (8 + root) * (loss_size[i] + 1);
    check_close("loss", i, loss.get(i), want_loss[i],
                s.reduction == Reduction::sum ? slack * std::sqrt(s.N + 1.0) : slack);
  }
}

inline void CrossEntropyProblem::check_backward() const {
  const double eps = epsilon_of(accumulator_of(dtype)), root = std::sqrt(static_cast<double>(s.C));
  double scale = s.reduction == Reduction::mean ? 1 / static_cast<double>(want_total_weight) : 1;
  if (s.weighted) scale *= 1.25;
  CHECK(dinput.lead_untouched(), "wrote before dinput");
  for (int64_t n = 0; n < s.N; ++n) {
    const double g =
        scale * std::fabs(dloss.get(s.reduction == Reduction::none ? n * s.dloss_stride : 0));
    for (int64_t c = 0; c < s.C; ++c) {
      const long double want = want_dinput[n * s.C + c];
      // p and q are at most about 2 each and cancel; exp carries the error of its argument.
      const double slack = epsilon_of(dtype) * std::fabs(static_cast<double>(want)) +
                           eps * (16 + root) * g + (dtype == DType::f16 ? 0x1p-24 : 0);
      check_close("dinput", n * s.C + c, dinput.get(n * s.C + c), want, slack);
    }
  }
}

}  // namespace mlpkern::testing
