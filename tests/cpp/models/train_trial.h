// One call of train_steps: its arrays between guard zones, and the results of the plain loop. The
// program that links this provides the launcher.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "mlp_arrays.h"

namespace mlpkern::testing {

// The problem. The defaults are the model of the lecture. The models differ in parameters, rates,
// seeds and, where the recipe has them, in weight decay and dropout (one model has none).
struct Problem {
  const char* name = "";
  DType dtype = DType::f32;
  MLPSizes sizes = {27, 3, 10, 27, {200}};
  int64_t M = 1, S = 3, N = 32, rows = 90, step = 0;
  Recipe recipe;
  double rate = 0.5;
  bool tf32 = false;
  IndexType input_type = IndexType::i64, target_type = IndexType::i64, batch_type = IndexType::i64;
  bool shared_batches = false, windows = false;  // windows: inputs[r, t] and [r + 1, t - 1] are one

  int64_t multiply_adds() const { return M * S * N * sizes.multiply_adds(); }  // forward
};

// The launcher under test, with a fresh workspace between guards.
int64_t launch_train_steps(const TrainSteps& args);

class Trial {
 public:
  explicit Trial(const Problem& problem);

  void restore();                             // parameters, moments and `stopped` as at the start
  int64_t run() { return run_part(0, p.S); }  // all steps
  int64_t run_part(int64_t begin, int64_t count);  // some of them, from the current state
  TrainSteps arguments(int64_t begin, int64_t count, void* losses);
  void poison_outputs();
  // Makes the loss of model 1 NaN, or infinite, at step `at`, and not before.
  void break_at(int64_t at, bool infinite);

  void expect();  // runs the plain loop on the contents of the arrays
  void check();   // compares with it
  std::vector<double> result(int64_t model) const;  // losses, stopped, parameters and moments
  double loss(int64_t model, int64_t s) const { return losses.get(model * p.S + s); }
  Recipe recipe_of(int64_t model) const;
  std::vector<Buffer*> outputs();
  std::string label() const;

  const Problem p;
  ModelArrays parameters, first, second;
  ExampleArrays examples;
  Ids batches;
  int64_t batch_model_stride, batch_step_stride;
  Ids stopped;
  Values losses;

 private:
  static constexpr int64_t kBatchRowStride = 2;

  // [0] losses (S,), then the tensors of the parameters and the moments.
  using Outcome = std::vector<std::vector<long double>>;
  template <class Real>
  Outcome simulate(int64_t model) const;
  Outcome outcome(int64_t model) const;

  std::vector<double> rates_, weight_decay_, input_dropout_, hidden_dropout_;
  std::vector<int64_t> seeds_, streams_;
  std::unique_ptr<bool[]> frozen_;
  std::vector<Outcome> exact_, plain_;  // per model
};

// The optimizers with all of their options.
std::vector<Problem> optimizers();

// The frozen tensors of a model: the embedding, the biases, the weights, the lowest layers, or all.
std::vector<std::vector<int64_t>> frozen_tensors(const MLPSizes& sizes);

// Every option of an optimizer at once.
Recipe everything(Optimizer optimizer);

void run_in_chunks(Trial& trial, const std::vector<int64_t>& lengths);

// Bit by bit.
bool same(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace mlpkern::testing
