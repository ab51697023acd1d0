// The contract between the bindings and every backend: one argument struct per kernel, with its
// formula, shapes and layout. Kernels take pointers, int64 sizes and strides (in elements),
// allocate nothing, own nothing and know no framework.
//
// Sizes: N rows of a batch, T context length, D embedding width, K input width, H hidden width,
// V table rows, C classes. "Adjacent" means stride 1 in elements. A stride may be 0.
//
// A CPU launcher returns -1, or the flat position (row * columns + column) of the first id or
// target out of range. Its outputs are then unspecified, but it has written nowhere else. On a GPU
// such a row becomes NaN and the position is recorded, see cuda/library.h. The caller supplies
// scratch of `<kernel>_workspace` bytes, 64-byte aligned.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mlpkern {

enum class DType : int32_t { f32, f64, bf16, f16 };
enum class IndexType : int32_t { u8, i16, i32, i64 };
enum class Reduction : int32_t { none = 0, mean = 1, sum = 2 };

// "acc" below is the accumulation type: float64 for f64, else float32.

// The shape of a tensor of ids, for the message about an id out of range. A tensor with more than
// kShapeAxes axes has its outer ones multiplied into size[0].
constexpr int kShapeAxes = 6;
struct IdShape {
  int32_t ndim;
  int64_t size[kShapeAxes];
};

// output[n, t*D + d] = weight[input[n, t], d]
struct EmbeddingGatherForward {
  DType dtype;
  IndexType index_type;
  int64_t N, T, V, D;
  const void* input;  // (N, T) ids
  int64_t input_row_stride, input_col_stride;
  IdShape input_shape;
  const void* weight;  // (V, D), elements adjacent
  int64_t weight_row_stride;
  void* output;  // (N, T*D) contiguous
  void* workspace;
};

// dweight[v, d] = sum over (n, t) with input[n, t] == v of doutput[n, t*D + d], in order of (n, t)
// within fixed pieces of the batch; the row padding_idx (-1: none) stays zero.
struct EmbeddingGatherBackward {
  DType dtype;
  IndexType index_type;
  int64_t N, T, V, D;
  const void* input;  // (N, T) ids
  int64_t input_row_stride, input_col_stride;
  IdShape input_shape;
  const void* doutput;  // (N, T*D), elements adjacent
  int64_t doutput_row_stride;
  int64_t padding_idx;
  void* dweight;  // (V, D) contiguous, every element written
  void* workspace;
};

// output[n, h] = tanh(bias[h] + sum_k input[n, k] * weight[h, k])
struct LinearTanhForward {
  DType dtype;
  bool tf32;  // on a GPU, f32: products of TF32 operands instead of IEEE float32
  int64_t N, K, H;
  const void* input;  // (N, K), elements adjacent
  int64_t input_row_stride;
  const void* weight;  // (H, K), elements adjacent
  int64_t weight_row_stride;
  const void* bias;  // (H,) adjacent, or null
  void* output;      // (N, H) contiguous
  void* workspace;
};

// dz = (1 - output^2) * doutput; dinput = dz weight; dweight = dz^T input; dbias = sum_n dz.
// A null output pointer: this gradient is not computed.
struct LinearTanhBackward {
  DType dtype;
  bool tf32;
  int64_t N, K, H;
  const void* doutput;  // (N, H), elements adjacent
  int64_t doutput_row_stride;
  const void* input;  // (N, K), elements adjacent
  int64_t input_row_stride;
  const void* weight;  // (H, K), elements adjacent
  int64_t weight_row_stride;
  const void* output;  // (N, H), elements adjacent
  int64_t output_row_stride;
  void* dinput;   // (N, K) contiguous, or null
  void* dweight;  // (H, K) contiguous, or null
  void* dbias;    // (H,), or null
  void* workspace;
};

// output[n, h] = tanh(bias[h] + sum_{t,d} embedding[input[n, t], d] * weight[h, t*D + d])
struct EmbeddingLinearTanhForward {
  DType dtype;
  IndexType index_type;
  int64_t N, T, V, D, H;
  const void* input;  // (N, T) ids
  int64_t input_row_stride, input_col_stride;
  const void* embedding;  // (V, D), elements adjacent
  int64_t embedding_row_stride;
  const void* weight;  // (H, T*D), elements adjacent
  int64_t weight_row_stride;
  const void* bias;  // (H,) adjacent, or null
  void* output;      // (N, H) contiguous
  void* workspace;
};

// dz = (1 - output^2) * doutput; dweight = dz^T x and dbias = sum_n dz with x the embedded rows;
// dembedding[v] = sum over (n, t) with input[n, t] == v of dz[n] weight[:, t*D : (t+1)*D].
// A null output pointer: this gradient is not computed.
struct EmbeddingLinearTanhBackward {
  DType dtype;
  IndexType index_type;
  int64_t N, T, V, D, H;
  const void* doutput;  // (N, H), elements adjacent
  int64_t doutput_row_stride;
  const void* input;  // (N, T) ids
  int64_t input_row_stride, input_col_stride;
  const void* embedding;  // (V, D), elements adjacent
  int64_t embedding_row_stride;
  const void* weight;  // (H, T*D), elements adjacent
  int64_t weight_row_stride;
  const void* output;  // (N, H), elements adjacent
  int64_t output_row_stride;
  void* dembedding;  // (V, D) contiguous, every element written, or null
  void* dweight;     // (H, T*D) contiguous, or null
  void* dbias;       // (H,), or null
  void* workspace;
};

// p[n, c] = softmax of input[n]; w[c] the class weights, 1 where weight is null;
// s = label_smoothing; y = target[n] where the target is ids, q[c] = target[n, c] where it is
// probabilities.
//
//   ids            loss[n] = -(1 - s) w[y] log p[n, y] - s/C sum_c w[c] log p[n, c],
//                  and 0 where y == ignore_index
//   probabilities  loss[n] = -sum_c w[c] ((1 - s) q[c] + s/C) log p[n, c]
//
// Reduction `sum` adds the rows; `mean` divides this by total_weight: the sum of w[y] over the rows
// that are not ignored, or N for probabilities.
struct CrossEntropyForward {
  DType dtype;
  bool target_is_probability;  // then target has the dtype of input
  IndexType index_type;        // of target otherwise
  int64_t N, C;
  const void* input;  // (N, C) logits, elements adjacent
  int64_t input_row_stride;
  const void* target;  // (N,) ids, target_row_stride apart; or (N, C) probabilities, adjacent
  int64_t target_row_stride;
  const void* weight;  // (C,) of dtype, adjacent, or null
  int64_t ignore_index;
  Reduction reduction;
  double label_smoothing;
  void* loss;          // (N,) of dtype for none, else one element
  void* lse;           // (2, N) of acc: m = max_c input[n, c], log(sum_c exp(input[n, c] - m))
  void* total_weight;  // one element of acc
  void* workspace;
};

// dinput[n, c] = g[n] (p[n, c] sum_j u[j] - u[c]), and 0 where y == ignore_index, with
//
//   u[c]  the weighted and smoothed target of class c:
//         ids            w[c] ((1 - s) [c == y] + s/C)
//         probabilities  w[c] ((1 - s) q[c] + s/C)
//   g[n]  the gradient of the row: dloss[n] (none), dloss (sum), dloss / total_weight (mean)
struct CrossEntropyBackward {
  DType dtype;
  bool target_is_probability;
  IndexType index_type;
  int64_t N, C;
  const void* dloss;     // (N,) of dtype for none, else one element
  int64_t dloss_stride;  // 0 for a broadcast gradient
  const void* input;
  int64_t input_row_stride;
  const void* target;
  int64_t target_row_stride;
  const void* weight;
  const void* lse;           // (2, N) contiguous, as the forward wrote it
  const void* total_weight;  // as the forward wrote it
  int64_t ignore_index;
  Reduction reduction;
  double label_smoothing;
  void* dinput;  // (N, C) contiguous
  void* workspace;
};

// The model of train_steps and evaluate: T ids -> their embeddings side by side -> L >= 1 layers
// tanh(x weight^T + bias) -> logits. Tensors in the order embedding (V, D); weight (H1, T*D), bias
// (H1,); ...; output weight (C, HL), bias (C,): 2 L + 3 pointers, each tensor of a model
// contiguous, models model_strides[i] elements apart.
struct MLP {
  DType dtype;  // f32 or f64
  int64_t M, V, T, D, C, L;
  const int64_t* hidden;  // (L,) widths H1 ... HL
  void* const* parameters;
  const int64_t* model_strides;
};

// The rows that a model is trained or evaluated on. The caller has checked that ids and targets are
// in range.
struct Examples {
  IndexType input_type, target_type;
  int64_t rows;
  const void* inputs;  // (rows, T) ids
  int64_t input_row_stride, input_col_stride;
  const void* targets;  // (rows,) ids
  int64_t target_stride;
};

enum class Optimizer : int32_t { sgd = 0, adamw = 1 };

// S optimizer steps of M models, each on the mean cross-entropy of N rows, as defined by
// mlpkern/reference/train_steps.py. Updates parameters, moments and `stopped` in place. On a GPU
// all arrays are in device memory, except `hidden` and the lists of pointers and strides.
struct TrainSteps {
  MLP model;
  const bool* frozen;   // for each of model.parameters: only read, with its moments; or null
  bool tf32;            // on a GPU: products of TF32 operands instead of IEEE float32
  void* const* first;   // momentum buffers or first moments, shaped and strided like parameters
  void* const* second;  // second moments; null where the optimizer has none
  const int64_t* first_strides;
  const int64_t* second_strides;
  Examples examples;
  IndexType batch_type;
  int64_t S, N;
  const void* batches;  // (M, S, N) row numbers, in range
  int64_t batch_model_stride, batch_step_stride, batch_row_stride;
  const double* rates;  // (M, S) learning rates, elements adjacent
  int64_t rate_model_stride;
  int64_t* stopped;  // (M,) -1, or the step at which the loss was not finite
  int64_t step;      // steps done before this call
  Optimizer optimizer;
  bool nesterov;
  double momentum, beta1, beta2, eps, max_grad_norm, label_smoothing;
  const double* weight_decay;    // (M,)
  const double* input_dropout;   // (M,) probabilities in [0, 1)
  const double* hidden_dropout;  // (M,)
  bool dropout;                  // whether any of these may be above 0
  const int64_t* seeds;          // (M,) of the dropout masks
  const int64_t* streams;        // (M,)
  void* losses;                  // (M, S) of dtype, contiguous
  void* workspace;
};

// Mean loss and accuracy of M models over all rows.
struct Evaluate {
  MLP model;
  bool tf32;
  Examples examples;
  double* loss;      // (M,)
  double* accuracy;  // (M,)
  void* workspace;
};

// Every CPU kernel as X(name, argument struct). Declarations, dispatch tables and tests expand this
// list. The CUDA kernels are listed in kernels_cuda.h.
#define MLPKERN_KERNELS(X)                                       \
  X(embedding_gather_forward, EmbeddingGatherForward)            \
  X(embedding_gather_backward, EmbeddingGatherBackward)          \
  X(linear_tanh_forward, LinearTanhForward)                      \
  X(linear_tanh_backward, LinearTanhBackward)                    \
  X(embedding_linear_tanh_forward, EmbeddingLinearTanhForward)   \
  X(embedding_linear_tanh_backward, EmbeddingLinearTanhBackward) \
  X(cross_entropy_forward, CrossEntropyForward)                  \
  X(cross_entropy_backward, CrossEntropyBackward)                \
  X(train_steps, TrainSteps)                                     \
  X(evaluate, Evaluate)

#define MLPKERN_DECLARE_KERNEL(name, Args) \
  int64_t name(const Args& args);          \
  size_t name##_workspace(const Args& args);

// The CPU launchers, forwarded to the instruction set chosen at run time (cpu/dispatch.h).
namespace cpu {
MLPKERN_KERNELS(MLPKERN_DECLARE_KERNEL)
}  // namespace cpu

}  // namespace mlpkern
