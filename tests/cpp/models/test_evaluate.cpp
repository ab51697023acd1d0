// evaluate against a plain loop: mean loss and accuracy of several models over any number of rows.
#include <cmath>
#include <vector>

#include "evaluate_trial.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

using Problem = EvaluateProblem;

class Trial : public EvaluateTrial {
 public:
  using EvaluateTrial::EvaluateTrial;
  int64_t run() { return launch(cpu::evaluate, cpu::evaluate_workspace, arguments()); }
};

void check(const Problem& problem) {
  if (left_out(problem.M * problem.rows * problem.sizes.multiply_adds())) return;
  Trial trial(problem);
  trial.expect();
  run_everywhere(
      trial.label(), trial.outputs(), [&] { return trial.run(); }, [&] { trial.check(); });
}

}  // namespace

TEST_CASE(any_number_of_rows) {
  for (int64_t rows : {1, 15, 33, 255, 256, 257, 700})  // a block is 256 rows
    for (DType dtype : {DType::f32, DType::f64}) {
      Problem problem;
      problem.dtype = dtype;
      problem.rows = rows;
      problem.M = rows == 257 ? 3 : 1;
      problem.sizes.hidden = {rows == 33 ? 200 : 24};
      check(problem);
    }
}

// Many rows of a small vocabulary may share products with the first layer; rows of a large one do
// not.
TEST_CASE(several_layers_over_several_blocks) {
  for (const MLPSizes& s : {MLPSizes{27, 3, 10, 27, {33, 9}}, MLPSizes{400, 2, 9, 6, {17, 9}},
                            MLPSizes{5, 4, 17, 3, {1, 40, 2}}})
    for (DType dtype : {DType::f32, DType::f64}) {
      Problem problem;
      problem.dtype = dtype;
      problem.sizes = s;
      problem.M = 2;
      problem.rows = 600;
      check(problem);
    }
}

TEST_CASE(awkward_sizes) {
  const MLPSizes sizes[] = {{1, 1, 1, 1, {1}},      {2, 1, 1, 2, {1}},
                            {27, 1, 17, 27, {33}},  {27, 9, 1, 5, {15, 2}},
                            {27, 3, 17, 28, {513}}, {40, 3, 33, 131, {16}},
                            {2, 1, 300, 1, {3}},    {9, 2, 3, 4, {3, 1, 2, 5}}};
  for (const MLPSizes& s : sizes)
    for (DType dtype : {DType::f32, DType::f64})
      for (int64_t M : {1, 4}) {
        Problem problem;
        problem.dtype = dtype;
        problem.sizes = s;
        problem.M = M;
        problem.rows = 37;
        check(problem);
      }
}

TEST_CASE(every_index_type_and_stride) {
  for (IndexType type : {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64})
    for (bool windows : {false, true}) {
      Problem problem;
      problem.sizes = {255, 4, 3, 250, {12}};
      problem.input_type = type;
      problem.windows = windows;
      check(problem);
      problem.input_type = IndexType::i32;
      problem.target_type = type;
      check(problem);
    }
}

TEST_CASE(the_first_of_equal_logits_is_the_prediction) {
  for (DType dtype : {DType::f32, DType::f64}) {
    Problem problem;
    problem.dtype = dtype;
    problem.rows = 300;
    problem.M = 2;
    problem.sizes.C = 20;
    Trial trial(problem);
    const int64_t weight = problem.sizes.tensors() - 2, bias = weight + 1;
    for (int64_t m : {0, 1}) {  // logits: model 0 all 0; model 1 has 2 at classes 7 and 18
      for (int64_t i = 0; i < problem.sizes.count(weight); ++i)
        trial.parameters.set(weight, m, i, 0);
      for (int64_t c = 0; c < 20; ++c)
        trial.parameters.set(bias, m, c, m == 1 && (c == 7 || c == 18) ? 2 : 0);
    }
    double share[2] = {};
    long double loss[2] = {};
    for (int64_t row = 0; row < 300; ++row) {
      const int64_t target = trial.examples.target(row);
      share[0] += (target == 0) / 300.0;
      share[1] += (target == 7) / 300.0;
      loss[0] += std::log(20.0L) / 300;
      loss[1] += (std::log(18 + 2 * std::exp(2.0L)) - (target == 7 || target == 18 ? 2 : 0)) / 300;
    }
    run_everywhere(
        "ties", trial.outputs(), [&] { return trial.run(); },
        [&] {
          for (int64_t m : {0, 1}) {
            CHECK(std::fabs(trial.accuracy.get(m) - share[m]) < 1e-12, "accuracy %g, want %g",
                  trial.accuracy.get(m), share[m]);
            // A few roundings a row, and those of the sum.
            const long double slack = (4 + std::sqrt(300.0)) * epsilon_of(dtype) * loss[m];
            CHECK(std::fabs(trial.loss.get(m) - loss[m]) <= slack, "loss %.17g, want %.17Lg",
                  trial.loss.get(m), loss[m]);
          }
        });
  }
}

TEST_CASE(a_model_of_nan_spoils_no_other) {
  Problem problem;
  problem.M = 3;
  problem.rows = 300;
  Trial trial(problem);
  for_each_isa("nan", [&] {
    trial.parameters.restore();
    trial.run();
    const double first = trial.loss.get(0), last = trial.loss.get(2);
    trial.parameters.set(0, 1, 0, NAN);
    trial.run();
    CHECK(std::isnan(trial.loss.get(1)), "loss %g", trial.loss.get(1));
    CHECK(trial.loss.get(0) == first && trial.loss.get(2) == last, "another loss changed");
  });
}

TEST_CASE(no_rows) {
  Problem problem;
  problem.rows = 0;
  Trial trial(problem);
  for_each_isa("no rows", [&] {
    trial.loss.set(0, 1), trial.accuracy.set(0, 1);
    CHECK(trial.run() == -1, "an offender in nothing");
    CHECK(std::isnan(trial.loss.get(0)) && std::isnan(trial.accuracy.get(0)), "got %g and %g",
          trial.loss.get(0), trial.accuracy.get(0));
  });
}
