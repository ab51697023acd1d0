// train_steps of narrow models: gradients and update of the weights and biases, each by the warp
// that owns the units.
#pragma once

#include "cuda/model/narrow/forward.cuh"

namespace mlpkern::cuda {
namespace {

struct NarrowWeights : NarrowForward {
  using NarrowForward::NarrowForward;

  // How the gradients of a block of rows are used.
  struct Use {
    const StepConstants* constants;  // in shared memory
    bool first, update;
  };

  // The warp's result (32, 16), rounded.
  __device__ __forceinline__ void keep(const float (&d)[kRowTiles][kUnitTiles][4]) {
    float* const at = part() + kept_at(l_.g, 2 * l_.t);
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          *reinterpret_cast<float2*>(at + kept_at(16 * m + 8 * half, 8 * n)) =
              make_float2(d[m][n][2 * half], d[m][n][2 * half + 1]);
  }

  // A (16, 8) of its transpose: all units and rows 8 k ..., in the order of operands across.
  template <class Math>
  __device__ __forceinline__ OperandA<Math> kept(int k) {
    const float* const even = part() + kept_at(2 * l_.t, l_.g) + kept_at(8 * k, 0);
    const float* const odd = part() + kept_at(2 * l_.t + 1, l_.g) + kept_at(8 * k, 0);
    const uint32_t raw[4] = {__float_as_uint(even[0]), __float_as_uint(even[kept_at(0, 8)]),
                             __float_as_uint(odd[0]), __float_as_uint(odd[kept_at(0, 8)])};
    OperandA<Math> a;
    a.template set<Values::rounded>(raw);
    return a;
  }

  // gradient (16, 32) = left^T right: left is the warp's kept matrix, and the reduction runs over
  // the rows of the batch.
  template <class Math, Values values>
  __device__ __forceinline__ void weight_gradient(float (&gradient)[kNarrowDepth][4],
                                                  const float* right) {
    clear(gradient);
#pragma unroll
    for (int k = 0; k < kNarrowRows / 8; ++k) {
      const auto a = kept<Math>(k);
#pragma unroll
      for (int j = 0; j < kNarrowDepth; ++j)
        Math::multiply(
            gradient[j], a,
            b_across<Math, values>(right + 8 * k * kNarrowStride + 8 * j, kNarrowStride, l_));
    }
  }

  __device__ __forceinline__ static void clear(float (&gradient)[kNarrowDepth][4]) {
#pragma unroll
    for (int j = 0; j < kNarrowDepth; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) gradient[j][r] = 0.0f;
  }

  enum Weight { kW1, kW2 };
  enum Bias { kB1, kB2 };

  // The number of the tensor in the model.
  __device__ __forceinline__ static int tensor_of(Weight which) { return which == kW1 ? 1 : 3; }
  __device__ __forceinline__ static int tensor_of(Bias which) { return which == kB1 ? 2 : 4; }

  __device__ __forceinline__ float* warp_sums() {
    return r_.workspace + m_ * r_.workspace_stride + l_.warp * kNarrowWarpSums;
  }
  __device__ __forceinline__ float4* weight_sums(Weight which) {
    return reinterpret_cast<float4*>(warp_sums() + which * kNarrowUnits * kNarrowWidth) + l_.lane;
  }
  __device__ __forceinline__ float* b1_sums() {
    return warp_sums() + 2 * kNarrowUnits * kNarrowWidth;
  }
  __device__ __forceinline__ float* b2_sums() {
    return r_.workspace + m_ * r_.workspace_stride + at_.warps * kNarrowWarpSums;
  }

  template <bool sums>
  __device__ __forceinline__ void use_gradient(Weight which, float (&gradient)[kNarrowDepth][4],
                                               const Use& use) {
    if (r_.is_frozen(tensor_of(which))) return;
    if constexpr (sums) {
      if (!use.first) add_sums(which, gradient);
      if (!use.update) {
#pragma unroll
        for (int j = 0; j < kNarrowDepth; ++j) {
          const float (&g)[4] = gradient[j];
          weight_sums(which)[j * kWarp] = make_float4(g[0], g[1], g[2], g[3]);
        }
      }
    }
    if (use.update)
      for_rule(r_.rule.rule, [&](auto is) {
#pragma unroll
        for (int j = 0; j < kNarrowDepth; ++j)
          update_tile<decltype(is)::rule, sums>(which, j, gradient[j], *use.constants);
      });
  }

  __device__ __forceinline__ void add_sums(Weight which, float (&gradient)[kNarrowDepth][4]) {
#pragma unroll
    for (int j = 0; j < kNarrowDepth; ++j) {
      const float4 sum = weight_sums(which)[j * kWarp];
      gradient[j][0] += sum.x, gradient[j][1] += sum.y;
      gradient[j][2] += sum.z, gradient[j][3] += sum.w;
    }
  }

  template <bool sums>
  __device__ __forceinline__ void use_bias_gradients(const float (&dz)[kRowTiles][kUnitTiles][4],
                                                     const Use& use) {
#pragma unroll
    for (int n = 0; n < kUnitTiles; ++n)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float sum = 0.0f;
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) sum += dz[m][n][c] + dz[m][n][c + 2];
#pragma unroll
        for (int distance = 16; distance >= 4; distance /= 2)
          sum += __shfl_xor_sync(kAllLanes, sum, distance);
        const int unit = 8 * n + 2 * l_.t + c;
        if (l_.g == 0) use_bias_gradient<sums>(b1_sums() + unit, kB1, unit0() + unit, sum, use);
      }
    if (l_.warp + 1 != at_.warps) return;
    float sum = 0.0f;
#pragma unroll 8
    for (int n = 0; n < kNarrowRows; ++n) sum += s_[at_.dlogits + n * kNarrowStride + l_.lane];
    use_bias_gradient<sums>(b2_sums() + l_.lane, kB2, l_.lane, sum, use);
  }

  template <bool sums>
  __device__ __forceinline__ void use_bias_gradient(float* stored, Bias which, int i,
                                                    float gradient, const Use& use) {
    if (r_.is_frozen(tensor_of(which))) return;
    if constexpr (sums) {
      if (!use.first) gradient += *stored;
      if (!use.update) {
        *stored = gradient;
      }
    }
    if (use.update)
      for_rule(r_.rule.rule, [&](auto is) {
        update_bias<decltype(is)::rule>(which, i, gradient, *use.constants);
      });
  }

  // Updates column tile j of the warp's rows of a weight, by its gradient in the layout of an mma
  // result.
  // The constants are a copy and all loads come first: the compiler moves no load before a store
  // that may alias it.
  template <Rule rule, bool sums>
  __device__ __forceinline__ void update_tile(Weight which, int j, const float (&gradient)[4],
                                              const StepConstants c) {
    const int tensor = tensor_of(which), columns = which == kW1 ? inputs_ : z_.C;
    constexpr int kAtOnce = sums               ? 1
                            : kHasSecond<rule> ? 2
                                               : 4;  // more would not fit the registers
#pragma unroll
    for (int r0 = 0; r0 < 4; r0 += kAtOnce) {
      float w[kAtOnce], first[kAtOnce] = {}, second[kAtOnce] = {};
      // body(i, element in shared memory, element of the caller's tensor)
      const auto for_elements = [&](const auto& body) {
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int r = r0 + i;
          const int unit = unit0() + l_.g + r / 2 * 8, column = 8 * j + 2 * l_.t + r % 2;
          if (unit < units_ && column < columns)
            body(i, s_[(which == kW1 ? at_.w1 : at_.w2) + unit * kNarrowStride + column],
                 which == kW1 ? unit * columns + column : column * units_ + unit);
        }
      };
      for_elements([&](int i, const float& mine, int given) {
        w[i] = mine;
        if constexpr (kHasFirst<rule>) first[i] = r_.first.at(tensor, m_)[given];
        if constexpr (kHasSecond<rule>) second[i] = r_.second.at(tensor, m_)[given];
      });
      for_elements([&](int i, float& mine, int given) {
        mine = updated<rule>(r_.rule, c, w[i], gradient[r0 + i], first[i], second[i], true);
        if constexpr (kHasFirst<rule>) r_.first.at(tensor, m_)[given] = first[i];
        if constexpr (kHasSecond<rule>) r_.second.at(tensor, m_)[given] = second[i];
      });
    }
  }

  template <Rule rule>
  __device__ __forceinline__ void update_bias(Bias which, int i, float gradient,
                                              const StepConstants& c) {
    if (i < (which == kB1 ? units_ : z_.C))
      update<rule>(c, s_[(which == kB1 ? at_.b1 : at_.b2) + i], gradient, tensor_of(which), i,
                   false);
  }
};

}  // namespace
}  // namespace mlpkern::cuda
