// The CUDA kernels: the list of them, and the arguments of those that only a GPU has. The others
// take the arguments of kernels.h. cuda/library.h declares the launchers.
#pragma once

#include "kernels.h"

namespace mlpkern {

// linear_tanh with its matrix products by cuBLAS: the epilogue of the forward, and the start of the
// backward.
//
// output[n, h] = tanh(output[n, h] + bias[h])
struct LinearTanhEpilogue {
  DType dtype;
  int64_t N, H;
  const void* bias;  // (H,) adjacent, or null
  void* output;      // (N, H) contiguous, in place
  void* workspace;
};

// dz = (1 - output^2) * doutput; dbias = sum_n dz
struct LinearTanhSlope {
  DType dtype;
  int64_t N, H;
  const void* doutput;  // (N, H), elements adjacent
  int64_t doutput_row_stride;
  const void* output;  // (N, H), elements adjacent
  int64_t output_row_stride;
  void* dz;     // (N, H) contiguous
  void* dbias;  // (H,), or null
  void* workspace;
};

// Every CUDA kernel as X(name, argument struct).
#define MLPKERN_CUDA_KERNELS(X)                         \
  X(embedding_gather_forward, EmbeddingGatherForward)   \
  X(embedding_gather_backward, EmbeddingGatherBackward) \
  X(linear_tanh_forward, LinearTanhForward)             \
  X(linear_tanh_backward, LinearTanhBackward)           \
  X(linear_tanh_epilogue, LinearTanhEpilogue)           \
  X(linear_tanh_slope, LinearTanhSlope)                 \
  X(cross_entropy_forward, CrossEntropyForward)         \
  X(cross_entropy_backward, CrossEntropyBackward)       \
  X(train_steps, TrainSteps)                            \
  X(evaluate, Evaluate)

// Which kernel runs train_steps or evaluate for a model.
enum class ModelPath : int32_t {
  none = 0,
  narrow = 1,  // one hidden layer, its units distributed over the warps of a block
  block = 2,   // any depth, matrix products of a whole block
};

}  // namespace mlpkern
