// train_steps on a CPU: S optimizer steps of M models in one call (see kernels.h, mlp.h,
// trainer.h).
//
// Models are dealt out to threads if there are enough of them, or if a step is small; else one
// model is trained after the other, by all threads.
//
// Compile alone:
//   g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx512 -march=skylake-avx512 -c
//   csrc/cpu/train_steps.cpp
#include "cpu/trainer.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kSplitMultiplyAdds = 1 << 22;  // a step above this is worth several threads

// How the work is shared, the same for the workspace and the run.
struct Sharing {
  bool within_step;     // several threads work on one step
  int64_t model_slots;  // models in work at the same time
};

Sharing sharing(const TrainSteps& a) {
  const int64_t threads = max_threads() < kMaxWorkers ? max_threads() : kMaxWorkers;
  const int64_t work = 3 * a.N * Sizes(a.model).multiply_adds();
  Sharing s;
  s.within_step = threads > 1 && a.model.M < threads && work >= kSplitMultiplyAdds;
  s.model_slots = s.within_step ? 1 : a.model.M < threads ? a.model.M : threads;
  return s;
}

template <class A>
int64_t run(const TrainSteps& a) {
  const Sharing share = sharing(a);
  const int64_t slot_bytes =
      round_up(static_cast<int64_t>(Trainer<A>(a, nullptr, false).bytes()), 64);
  const auto train = [&](int64_t model, int64_t slot) {
    Trainer<A>(a, static_cast<char*>(a.workspace) + slot * slot_bytes, share.within_step)
        .run(model);
  };
  if (share.model_slots > 1)
    parallel_for_dynamic(a.model.M, train);
  else
    for (int64_t model = 0; model < a.model.M; ++model) train(model, 0);
  return -1;
}

}  // namespace

size_t train_steps_workspace(const TrainSteps& a) {
  const size_t bytes = a.model.dtype == DType::f64 ? Trainer<double>(a, nullptr, false).bytes()
                                                   : Trainer<float>(a, nullptr, false).bytes();
  return static_cast<size_t>(sharing(a).model_slots) *
         static_cast<size_t>(round_up(static_cast<int64_t>(bytes), 64));
}

int64_t train_steps(const TrainSteps& a) {
  return a.model.dtype == DType::f64 ? run<double>(a) : run<float>(a);
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
