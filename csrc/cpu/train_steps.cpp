// train_steps on a CPU: S optimizer steps of M models in one call (see kernels.h,
// mlp/mlp.h, mlp/training/trainer.h).
//
// With enough models, or small steps, each thread trains models of its own; otherwise the models
// are trained one after another, each by all threads. A long run is cut into pieces of steps, and
// all models finish a piece before the next one, so that a run that ends early leaves all of them
// at the same step.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx2 -march=haswell -c csrc/cpu/train_steps.cpp
#include "cpu/dispatch.h"
#include "cpu/mlp/training/trainer.h"
#include "cpu/threads/pieces.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int kLoopsOfAStep = 16;  // about, with one hidden layer

// Dropout of the input has no folded form.
template <class A>
bool folds(const TrainSteps& a, int64_t model) {
  return a.input_dropout[model] == 0 && fold_pays_in_training<A>(Sizes(a.model), a.N);
}

// How threads share the work; the workspace and the run must agree on it.
template <class A>
Sharing sharing(const TrainSteps& a) {
  const int64_t threads = max_threads() < kMaxWorkers ? max_threads() : kMaxWorkers;
  const Sizes z(a.model);
  bool worth = false;  // for any of the models
  for (int64_t model = 0; model < a.model.M && !worth; ++model) {
    const int64_t folded = folds<A>(a, model) ? z.inputs(0) * z.outputs(0) : 0;
    const int64_t rows = a.N * (z.multiply_adds() - folded);
    worth = step_worth_threads(3.0 * static_cast<double>(rows), kLoopsOfAStep);
  }
  if (threads > 1 && a.model.M < threads && worth) return {threads, 1};
  return {1, a.model.M < threads ? a.model.M : threads};
}

// Bytes for each model and for each slot; the same for every model.
struct Layout {
  int64_t packed = 0, scratch = 0;
};

template <class A>
Layout layout(const TrainSteps& a) {
  size_t packed = 0, scratch = 0;
  for (int64_t model = 0; model < a.model.M; ++model) {
    const Trainer<A> trainer(a, nullptr, nullptr, false, folds<A>(a, model));
    if (trainer.packed_bytes() > packed) packed = trainer.packed_bytes();
    if (trainer.scratch_bytes() > scratch) scratch = trainer.scratch_bytes();
  }
  return {round_up(static_cast<int64_t>(packed), 64), round_up(static_cast<int64_t>(scratch), 64)};
}

template <class A>
size_t workspace(const TrainSteps& a) {
  const Layout bytes = layout<A>(a);
  return static_cast<size_t>(a.model.M * bytes.packed + sharing<A>(a).models * bytes.scratch);
}

// Multiply-adds of a step of all models, at most.
double multiply_adds(const TrainSteps& a) {
  const auto rows = static_cast<double>(a.N), table = static_cast<double>(a.model.V * a.model.D);
  const auto row = static_cast<double>(Sizes(a.model).multiply_adds());
  return static_cast<double>(a.model.M) * (3 * rows * row + table);
}

template <class A>
int64_t run(const TrainSteps& a) {
  const LongCall long_call;
  const Sharing share = sharing<A>(a);
  const Layout bytes = layout<A>(a);
  char* const packed = static_cast<char*>(a.workspace);
  char* const scratch = packed + a.model.M * bytes.packed;
  // body(trainer, model) for all models
  const auto for_models = [&](const auto& body) {
    const auto one = [&](int64_t model, int64_t slot) {
      Trainer<A> trainer(a, packed + model * bytes.packed, scratch + slot * bytes.scratch,
                         share.threads > 1, folds<A>(a, model));
      body(trainer, model);
    };
    if (share.models > 1)
      parallel_for_dynamic(a.model.M, one);
    else
      for (int64_t model = 0; model < a.model.M; ++model) one(model, 0);
  };
  Pieces pieces(a.S, multiply_adds(a));
  for (int64_t begin = 0; begin < a.S;) {
    const int64_t end = pieces.end();
    for_models([&](Trainer<A>& trainer, int64_t model) { trainer.run(model, begin, end); });
    if (!pieces.go_on(end)) {
      for_models([](Trainer<A>& trainer, int64_t model) { trainer.end_early(model); });
      break;
    }
    begin = end;
  }
  return -1;
}

}  // namespace

Sharing train_steps_sharing(const TrainSteps& a) {
  return a.model.dtype == DType::f64 ? sharing<double>(a) : sharing<float>(a);
}

size_t train_steps_workspace(const TrainSteps& a) {
  return a.model.dtype == DType::f64 ? workspace<double>(a) : workspace<float>(a);
}

int64_t train_steps(const TrainSteps& a) {
  return a.model.dtype == DType::f64 ? run<double>(a) : run<float>(a);
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
