// The model and the examples of train_steps and evaluate as kernel arguments: by value, the tensors
// in the order of kernels.h.
#pragma once

#include <cuda_runtime.h>

#include "kernels.h"

namespace mlpkern::cuda {

constexpr int kMostHidden = 8;  // the most hidden layers of a kernel
constexpr int kMostTensors = 2 * kMostHidden + 3;
constexpr int64_t kMostRows = 1 << 20;  // of a batch

// Embedding, then weight and bias of each layer, of M models.
struct ModelTensors {
  float* data[kMostTensors];
  int64_t stride[kMostTensors];

  __device__ __forceinline__ float* at(int i, int64_t model) const {
    return data[i] ? data[i] + model * stride[i] : nullptr;
  }
  __device__ __forceinline__ float* weight(int layer, int64_t model) const {
    return at(1 + 2 * layer, model);
  }
  __device__ __forceinline__ float* bias(int layer, int64_t model) const {
    return at(2 + 2 * layer, model);
  }
};

inline ModelTensors model_tensors(void* const* pointers, const int64_t* strides, int64_t L) {
  ModelTensors t{};
  for (int64_t i = 0; pointers && i < 2 * L + 3; ++i)
    t.data[i] = static_cast<float*>(pointers[i]), t.stride[i] = strides[i];
  return t;
}

// Layer l has inputs(l) inputs and outputs(l) outputs; layer L gives the logits.
struct ModelSizes {
  int V, T, D, C, L;
  int hidden[kMostHidden];

  __host__ __device__ __forceinline__ int inputs(int l) const {
    return l == 0 ? T * D : hidden[l - 1];
  }
  __host__ __device__ __forceinline__ int outputs(int l) const { return l == L ? C : hidden[l]; }
};

// Whether int and kMostHidden suffice for the sizes of the model.
inline bool sizes_fit(const MLP& m) {
  constexpr int64_t most = 1 << 20;
  if (m.L > kMostHidden || m.V > most || m.T > most || m.D > most || m.T * m.D > most || m.C > most)
    return false;
  for (int64_t l = 0; l < m.L; ++l)
    if (m.hidden[l] > most) return false;
  return true;
}

inline ModelSizes model_sizes(const MLP& m) {
  ModelSizes z{};
  z.V = static_cast<int>(m.V), z.T = static_cast<int>(m.T), z.D = static_cast<int>(m.D);
  z.C = static_cast<int>(m.C), z.L = static_cast<int>(m.L);
  for (int l = 0; l < z.L; ++l) z.hidden[l] = static_cast<int>(m.hidden[l]);
  return z;
}

__device__ __forceinline__ int64_t load_id(IndexType type, const void* data, int64_t offset) {
  switch (type) {
    case IndexType::u8:
      return static_cast<const uint8_t*>(data)[offset];
    case IndexType::i16:
      return static_cast<const int16_t*>(data)[offset];
    case IndexType::i32:
      return static_cast<const int32_t*>(data)[offset];
    default:
      return static_cast<const int64_t*>(data)[offset];
  }
}

__device__ __forceinline__ int load_input(const Examples& e, int64_t row, int t) {
  return static_cast<int>(
      load_id(e.input_type, e.inputs, row * e.input_row_stride + t * e.input_col_stride));
}
__device__ __forceinline__ int load_target(const Examples& e, int64_t row) {
  return static_cast<int>(load_id(e.target_type, e.targets, row * e.target_stride));
}

}  // namespace mlpkern::cuda
