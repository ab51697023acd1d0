// One call of evaluate: its arrays between guard zones, and the results of the plain loop.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "mlp_arrays.h"

namespace mlpkern::testing {

struct EvaluateProblem {
  DType dtype = DType::f32;
  MLPSizes sizes = {27, 3, 10, 27, {200}};
  int64_t M = 1, rows = 100;
  IndexType input_type = IndexType::i64, target_type = IndexType::i64;
  bool windows = false, tf32 = false;  // windows: inputs[r, t] and [r + 1, t - 1] are one
};

class EvaluateTrial {
 public:
  explicit EvaluateTrial(const EvaluateProblem& problem)
      : p(problem),
        parameters(p.dtype, p.sizes, p.M, 5),
        examples(p.sizes, p.rows, p.input_type, p.target_type, p.windows ? 1 : p.sizes.T + 2, 1, 2),
        loss(DType::f64, p.M),
        accuracy(DType::f64, p.M) {
    parameters.randomize();
  }

  Evaluate arguments() {
    Evaluate a{};
    a.model = parameters.mlp();
    a.tf32 = p.tf32;
    a.examples = examples.examples();
    a.loss = static_cast<double*>(loss.data());
    a.accuracy = static_cast<double*>(accuracy.data());
    return a;
  }
  std::vector<Buffer*> outputs() { return {&loss.buffer, &accuracy.buffer}; }

  void expect() {
    expected_.clear();
    for (int64_t m = 0; m < p.M; ++m)
      expected_.push_back(p.dtype == DType::f64 ? expect_model<double>(m) : expect_model<float>(m));
  }
  void check() const {
    for (int64_t m = 0; m < p.M; ++m) {
      const Expected& e = expected_[m];
      CHECK(std::fabs(loss.get(m) - e.loss) <= e.loss_slack,
            "loss[%lld] got %.17g, want %.17g, slack %g", static_cast<long long>(m), loss.get(m),
            e.loss, e.loss_slack);
      const double right = accuracy.get(m) * static_cast<double>(p.rows);
      CHECK(
          std::fabs(right - static_cast<double>(e.right)) <= static_cast<double>(e.unclear) + 1e-6,
          "accuracy[%lld] is %g rows, want %lld, %lld are unclear", static_cast<long long>(m),
          right, static_cast<long long>(e.right), static_cast<long long>(e.unclear));
    }
  }
  std::string label() const {
    return format("evaluate %s%s M=%lld rows=%lld V=%lld T=%lld D=%lld C=%lld", name_of(p.dtype),
                  p.tf32 ? " tf32" : "", static_cast<long long>(p.M),
                  static_cast<long long>(p.rows), static_cast<long long>(p.sizes.V),
                  static_cast<long long>(p.sizes.T), static_cast<long long>(p.sizes.D),
                  static_cast<long long>(p.sizes.C));
  }

  const EvaluateProblem p;
  ModelArrays parameters;
  ExampleArrays examples;
  Values loss, accuracy;

 private:
  // The results of the plain loop for a model.
  struct Expected {
    double loss = 0, loss_slack = 0;
    int64_t right = 0, unclear = 0;  // rows whose two largest logits are equal to rounding
  };

  template <class Real>
  Expected expect_model(int64_t m) const {
    const auto model = parameters.model(m);
    const PlainMLP<long double> exact(p.sizes, model);
    const PlainMLP<Real> plain(p.sizes, model);
    // The factors of a product are rounded to 11 bits; so is what a logit is a sum of.
    const double eps = p.tf32 ? 0x1p-11 : epsilon_of(p.dtype), rows = static_cast<double>(p.rows);
    Expected e;
    long double sum = 0;
    for (int64_t row = 0; row < p.rows; ++row) {
      const std::vector<int64_t> ids = examples.ids(row);
      const int64_t target = examples.target(row);
      const auto want = exact.evaluate_row(ids.data(), target);
      const auto near = plain.evaluate_row(ids.data(), target);
      sum += want.loss;
      e.right += want.best == target;
      e.unclear += want.lead < (p.tf32 ? 4 : 100) * eps;
      // A row may be off by twice the error of the plain loop in the same dtype, and a few
      // roundings.
      e.loss_slack += static_cast<double>(2 * std::fabs(near.loss - want.loss) +
                                          4 * eps * (1 + std::fabs(want.loss))) /
                      rows;
    }
    e.loss = static_cast<double>(sum / rows);
    return e;
  }

  std::vector<Expected> expected_;
};

}  // namespace mlpkern::testing
