// The arguments of train_steps as kernel arguments, by value. A separate kernel first computes what
// depends only on the step.
#pragma once

#include "cuda/device/philox.cuh"
#include "cuda/model/mlp.cuh"
#include "cuda/model/optimizer.cuh"

namespace mlpkern::cuda {

static_assert(kMostTensors <= 32, "TrainingRun::frozen");

struct TrainingRun {
  ModelSizes sizes;
  int64_t S, N, step;  // steps of the call, rows of a batch, steps done before
  ModelTensors parameters, first, second;
  uint32_t frozen;  // bit i: tensor i of the parameters is only read
  Examples examples;
  IndexType batch_type;
  const void* batches;
  int64_t batch_model_stride, batch_step_stride, batch_row_stride;
  const StepConstants* constants;  // (M, S)
  int64_t* stopped;                // (M,)
  RuleConstants rule;
  float max_grad_norm, label_smoothing;
  const double *input_dropout, *hidden_dropout;  // (M,)
  const int64_t *seeds, *streams;                // (M,)
  float* losses;                                 // (M, S)
  float* workspace;                              // of all models, for the kernels that need one
  int64_t workspace_stride;                      // elements from model to model

  __host__ __device__ __forceinline__ bool clips() const { return max_grad_norm < INFINITY; }
  __device__ __forceinline__ bool is_frozen(int tensor) const { return frozen >> tensor & 1; }

  __device__ __forceinline__ int64_t batch_row(int64_t model, int64_t s, int64_t n) const {
    return load_id(batch_type, batches,
                   model * batch_model_stride + s * batch_step_stride + n * batch_row_stride);
  }
  // The dropout of layer l in the first step of this call.
  __device__ __forceinline__ Dropout dropout(int64_t model, int l) const {
    return dropout_of(l == 0 ? input_dropout[model] : hidden_dropout[model], seeds[model],
                      streams[model], step, l);
  }
};

inline TrainingRun training_run(const TrainSteps& a) {
  TrainingRun r{};
  r.sizes = model_sizes(a.model);
  r.S = a.S, r.N = a.N, r.step = a.step;
  r.parameters = model_tensors(a.model.parameters, a.model.model_strides, a.model.L);
  r.first = model_tensors(a.first, a.first_strides, a.model.L);
  r.second = model_tensors(a.second, a.second_strides, a.model.L);
  for (int64_t i = 0; a.frozen && i < 2 * a.model.L + 3; ++i)
    if (a.frozen[i]) r.frozen |= uint32_t{1} << i;
  r.examples = a.examples;
  r.batch_type = a.batch_type, r.batches = a.batches;
  r.batch_model_stride = a.batch_model_stride, r.batch_step_stride = a.batch_step_stride;
  r.batch_row_stride = a.batch_row_stride;
  r.stopped = a.stopped;
  r.rule = rule_constants(a);
  r.max_grad_norm = static_cast<float>(a.max_grad_norm);
  r.label_smoothing = static_cast<float>(a.label_smoothing);
  r.input_dropout = a.input_dropout, r.hidden_dropout = a.hidden_dropout;
  r.seeds = a.seeds, r.streams = a.streams;
  r.losses = static_cast<float*>(a.losses);
  return r;
}

}  // namespace mlpkern::cuda
