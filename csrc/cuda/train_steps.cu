// train_steps on a GPU: a block trains one model through all steps of the call, with its parameters
// in shared memory. Models beyond the number of multiprocessors wait for a free one; blocks of
// models that have stopped end at once.
//
//   constants   the constants of each step for the optimizer, in float64
//   narrow      model/narrow/train_steps.cuh: one hidden layer, its units distributed over warps
//   block       model/block/train_steps.cuh: any depth
//
// The path follows from sizes, options and the shared memory that the device gives a block. Both
// have a fixed order of every sum, so the bits of a model depend neither on the other models nor on
// how a run is cut into calls.
//
// Compile alone:
// nvcc -std=c++17 -arch=sm_90 -Icsrc -Xptxas -v -cubin csrc/cuda/train_steps.cu
#include "cuda/device/launch.cuh"
#include "cuda/library.h"
#include "cuda/model/block/train_steps.cuh"
#include "cuda/model/narrow/train_steps.cuh"
#include "cuda/model/run.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kConstantsThreads = 128;

__global__ void __launch_bounds__(kConstantsThreads)
    train_steps_constants_kernel(StepConstants* constants, Rule rule, double beta1, double beta2,
                                 unsigned blocks_per_model, int64_t S, int64_t step,
                                 const double* rates, int64_t rate_model_stride,
                                 const double* weight_decay) {
  const int64_t m = blockIdx.x / blocks_per_model;
  const int64_t s = int64_t{blockIdx.x % blocks_per_model} * kConstantsThreads + threadIdx.x;
  if (s >= S) return;
  constants[m * S + s] = step_constants(rule, beta1, beta2, rates[m * rate_model_stride + s],
                                        weight_decay[m], step + s + 1);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

size_t constants_bytes(const TrainSteps& a) {
  return static_cast<size_t>(a.model.M) * a.S * sizeof(StepConstants);
}

// Floats of each model, a multiple of 4.
size_t model_workspace(const TrainSteps& a, ModelPath path) {
  const size_t floats = path == ModelPath::narrow  ? narrow_workspace(a)
                        : path == ModelPath::block ? block_workspace(a)
                                                   : 0;
  return (floats + 3) / 4 * 4;
}

}  // namespace

ModelPath train_steps_path(const TrainSteps& a) {
  if (a.model.dtype != DType::f32 || !sizes_fit(a.model) || a.N > kMostRows) return ModelPath::none;
  if (narrow_fits(a, narrow_limit(a))) return ModelPath::narrow;
  return block_fits(a) ? ModelPath::block : ModelPath::none;
}

size_t train_steps_workspace(const TrainSteps& a) {
  return constants_bytes(a) +
         static_cast<size_t>(a.model.M) * model_workspace(a, train_steps_path(a)) * sizeof(float);
}

int train_steps(const TrainSteps& a, void* stream) {
  const ModelPath path = train_steps_path(a);
  if (path == ModelPath::none) return cudaErrorInvalidValue;
  if (a.model.M == 0 || a.S == 0) return cudaSuccess;
  TrainingRun run = training_run(a);
  auto* constants = static_cast<StepConstants*>(a.workspace);
  run.constants = constants;
  run.workspace = reinterpret_cast<float*>(static_cast<char*>(a.workspace) + constants_bytes(a));
  run.workspace_stride = static_cast<int64_t>(model_workspace(a, path));
  const int64_t blocks = ceil_div(a.S, kConstantsThreads);  // of a model
  const cudaError_t error = launch<train_steps_constants_kernel>(
      a.model.M * blocks, kConstantsThreads, 0, stream, constants, run.rule.rule, a.beta1, a.beta2,
      static_cast<unsigned>(blocks), a.S, a.step, a.rates, a.rate_model_stride, a.weight_decay);
  if (error != cudaSuccess) return error;
  if (path == ModelPath::narrow) return launch_narrow(a, run, stream);
  return launch_block(a, run, stream);
}

}  // namespace mlpkern::cuda
