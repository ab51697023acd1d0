// How a block uses gradients: if the batch is one block of rows and gradients are not clipped, they
// update the parameters at once; otherwise they are summed over the blocks of rows first.
#pragma once

#include "cuda/model/block/forward.cuh"
#include "cuda/model/run.cuh"

namespace mlpkern::cuda {
namespace {

// Tensor i of a model: element (row, column) is offset + row * stride + column floats into its
// parameters, gradients or moments in shared memory or workspace.
struct BlockTensor {
  int i, offset, rows, columns, stride;
  __device__ __forceinline__ bool is_bias() const { return i > 0 && i % 2 == 0; }
};

__host__ __device__ __forceinline__ int moments_of(Rule rule) {
  return rule == Rule::sgd ? 0 : rule == Rule::adamw ? 2 : 1;
}

template <class Math>
class BlockUpdate {
 public:
  // Whether all gradients must be complete before any parameter is updated.
  __host__ __device__ __forceinline__ static bool sums(int64_t N, bool clips) {
    return N > kBlockRows || clips;
  }

  __device__ __forceinline__ BlockUpdate(const TrainingRun& run, const BlockModel<Math>& block,
                                         int64_t model)
      : b(block), r_(run), model_(model) {}

  __device__ __forceinline__ bool sums() const { return sums(r_.N, r_.clips()); }

  // Fills the sums with zeros, padding included.
  __device__ __forceinline__ void clear() const {
    if (!sums()) return;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < b.at.parameters; i += kBlockThreads)
      gradients()[i] = 0.0f;
  }

  // Whether the following gradients are of the first block of rows of a step.
  __device__ __forceinline__ void begin(bool first_rows) { adds_ = !first_rows; }

  __device__ __forceinline__ BlockTensor embedding() const { return {0, 0, b.z.V, b.z.D, b.z.D}; }
  __device__ __forceinline__ BlockTensor weight(int i) const {
    const BlockLayout::Layer& layer = b.layer(i);
    return {1 + 2 * i, layer.weight, layer.outputs, layer.inputs, layer.stride};
  }
  __device__ __forceinline__ BlockTensor bias(int i) const {
    return {2 + 2 * i, b.layer(i).bias, 1, b.layer(i).outputs, 0};
  }

  // The gradients of one or two adjacent tiles (16, 8), in the layout of an mma result. One tile at
  // a time, since the moments of all elements at once would need too many registers.
  template <int tiles>
  __device__ __forceinline__ void take(const BlockTensor& t, int row, int column,
                                       const float (&d)[tiles][4]) const {
    const Lane& l = b.l;
    take_each(t, [&](const auto& body) {
#pragma unroll 1
      for (int j = 0; j < tiles; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int r = row + l.g + e / 2 * 8, c = column + 8 * j + 2 * l.t + e % 2;
          if (r < t.rows && c < t.columns) body(r, c, j == 0 ? d[0][e] : d[tiles - 1][e]);
        }
    });
  }
  // The gradient of one element.
  __device__ __forceinline__ void take(const BlockTensor& t, int column, float g) const {
    take_each(t, [&](const auto& body) { body(0, column, g); });
  }

  // One step with the sums, scaled to a norm of at most max_grad_norm. Call it after a barrier; a
  // barrier must follow. `scratch` holds kMostWarps floats.
  __device__ __forceinline__ void step_with_sums(float* scratch) const {
    float scale = 1.0f;
    if (r_.clips()) {
      float sum = 0.0f;
      for (int i = static_cast<int>(threadIdx.x); i < b.at.parameters; i += kBlockThreads)
        sum += gradients()[i] * gradients()[i];
      const float clipped = r_.max_grad_norm / (sqrtf(block_sum(sum, scratch)) + 1e-6f);
      if (!(clipped >= 1.0f)) scale = clipped;  // NaN too
    }
    for_rule(r_.rule.rule, [&](auto is) {
#pragma unroll 1
      for (int i = 0; i < 2 * b.z.L + 3; ++i) {
        if (r_.is_frozen(i)) continue;
        const BlockTensor t = i == 0 ? embedding() : i % 2 == 1 ? weight(i / 2) : bias(i / 2 - 1);
#pragma unroll 1
        for (int e = static_cast<int>(threadIdx.x); e < t.rows * t.columns; e += kBlockThreads) {
          const int row = e / t.columns, column = e - row * t.columns;
          change<decltype(is)::rule>(t, row, column,
                                     scale * gradients()[t.offset + row * t.stride + column]);
        }
      }
    });
  }

  const BlockModel<Math> b;  // a copy: an object that points into itself stays in local memory

 private:
  __device__ __forceinline__ float* gradients() const {
    return b.at.gradients >= 0 ? b.s + b.at.gradients : r_.workspace + model_ * r_.workspace_stride;
  }
  // A copy, since any store into shared memory may change the original; read again for each
  // element, since no registers are left for it.
  __device__ __forceinline__ StepConstants constants() const {
    return *reinterpret_cast<const StepConstants*>(b.s + b.at.constants);
  }

  template <class ForEach>
  __device__ __forceinline__ void take_each(const BlockTensor& t, const ForEach& for_each) const {
    if (r_.is_frozen(t.i)) return;  // its sums stay zero
    if (sums())
      for_each([&](int row, int column, float g) {
        float& sum = gradients()[t.offset + row * t.stride + column];
        sum = adds_ ? sum + g : g;
      });
    else
      for_rule(r_.rule.rule, [&](auto is) {
        for_each(
            [&](int row, int column, float g) { change<decltype(is)::rule>(t, row, column, g); });
      });
  }

  template <Rule rule>
  __device__ __forceinline__ void change(const BlockTensor& t, int row, int column, float g) const {
    float& w = b.s[t.offset + row * t.stride + column];
    const bool here = b.at.moments >= 0;
    float first = 0.0f, second = 0.0f, *firsts = nullptr, *seconds = nullptr;
    if constexpr (kHasFirst<rule>) {
      firsts = here ? &w + b.at.moments : r_.first.at(t.i, model_) + row * t.columns + column;
      first = *firsts;
    }
    if constexpr (kHasSecond<rule>) {
      seconds =
          here ? firsts + b.at.parameters : r_.second.at(t.i, model_) + row * t.columns + column;
      second = *seconds;
    }
    w = updated<rule>(r_.rule, constants(), w, g, first, second, !t.is_bias());
    if constexpr (kHasFirst<rule>) *firsts = first;
    if constexpr (kHasSecond<rule>) *seconds = second;
  }

  const TrainingRun& r_;
  const int64_t model_;
  bool adds_ = false;
};

}  // namespace
}  // namespace mlpkern::cuda
