// train_steps of narrow models: from ids to losses and the gradient of the logits.
#pragma once

#include "cuda/device/tanh.cuh"
#include "cuda/model/narrow/model.cuh"

namespace mlpkern::cuda {
namespace {

struct NarrowForward : NarrowModel {
  using NarrowModel::NarrowModel;

  // x of a block of rows, rounded, as only products read it.
  template <class Math>
  __device__ __forceinline__ void gather(Block at, int buffer) {
    const int row0 = at.b * kNarrowRows;
    for (int n = l_.warp; n < kNarrowRows; n += at_.warps) {
      float x = 0.0f;
      if (l_.lane < inputs_) {
        x = s_[at_.embedding + ids(buffer, position_)[n] * z_.D + column_];
        if (input_drops_) x *= dropout_factor(later(dropouts()[0], at.s), l_.lane, row0 + n);
      }
      s_[at_.x + n * kNarrowStride + l_.lane] = Math::template rounded<Values::any>(x);
    }
  }

  // ---- hidden layer and logits ----

  // The dropout of what the lane holds of h, (kRowTiles, kUnitTiles, 4): a bit for each.
  struct Kept {
    uint32_t bits;
    float scale;

    __device__ __forceinline__ float factor(int m, int n, int r) const {
      return bits >> ((m * kUnitTiles + n) * 4 + r) & 1 ? scale : 0.0f;
    }
  };

  __device__ __forceinline__ Kept draw(Block here) {
    if (!hidden_drops_) return {~uint32_t{0}, 1.0f};
    const Dropout dropout = later(dropouts()[1], here.s);
    const int row0 = here.b * kNarrowRows;
    Kept kept{0, dropout.scale};
#pragma unroll 1
    for (int bit = 0; bit < kRowTiles * kUnitTiles * 4; bit += 2) {
      const int m = bit / (4 * kUnitTiles), n = bit / 4 % kUnitTiles, half = bit / 2 % 2;
      uint32_t word[4];
      philox(word, dropout, static_cast<uint32_t>((unit0() + 8 * n + 2 * l_.t) / 4),
             static_cast<uint32_t>(row0 + 16 * m + 8 * half + l_.g));
      const uint32_t low = l_.t & 1 ? word[2] : word[0], high = l_.t & 1 ? word[3] : word[1];
      kept.bits |= static_cast<uint32_t>(low >= dropout.threshold) << bit;
      kept.bits |= static_cast<uint32_t>(high >= dropout.threshold) << (bit + 1);
    }
    return kept;
  }

  // The input of the output layer, from y.
  __device__ __forceinline__ void read(float (&h)[4], const float (&y)[4], const Kept& kept, int m,
                                       int n) {
#pragma unroll
    for (int r = 0; r < 4; ++r) h[r] = y[r];
    if (hidden_drops_)
#pragma unroll
      for (int r = 0; r < 4; ++r) h[r] *= kept.factor(m, n, r);
  }

  // y = tanh(x w1^T + b1) of the warp's units.
  template <class Math>
  __device__ __forceinline__ void hidden(float (&y)[kRowTiles][kUnitTiles][4]) {
    product<Math, Values::rounded>(y, s_ + at_.x, s_ + at_.w1);
#pragma unroll
    for (int n = 0; n < kUnitTiles; ++n) {
      const float* bias = s_ + at_.b1 + unit0() + 8 * n + 2 * l_.t;
      const float b[2] = {bias[0], bias[1]};
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const float z = y[m][n][r] + b[r & 1];
          y[m][n][r] = Math::kSplit ? tanh_accurate(z) : tanh_absolute(z);
        }
    }
  }

  // d (32, 16) = the rows of `a` times the warp's rows of a weight.
  template <class Math, Values values>
  __device__ __forceinline__ void product(float (&d)[kRowTiles][kUnitTiles][4], const float* a,
                                          const float* weight) {
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n)
#pragma unroll
        for (int r = 0; r < 4; ++r) d[m][n][r] = 0.0f;
#pragma unroll
    for (int k = 0; k < kNarrowDepth; ++k) {
      OperandA<Math> left[kRowTiles];
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        left[m] = a_along<Math, values>(a + m * 16 * kNarrowStride + 8 * k, kNarrowStride, l_);
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        const auto right =
            b_along<Math>(weight + (unit0() + 8 * n) * kNarrowStride + 8 * k, kNarrowStride, l_);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) Math::multiply(d[m][n], left[m], right);
      }
    }
  }

  // The warp's part (32, classes) = h w2^T over its units.
  template <class Math>
  __device__ __forceinline__ void logits(const float (&y)[kRowTiles][kUnitTiles][4],
                                         const Kept& kept) {
    OperandA<Math> left[kRowTiles][kUnitTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        float h[4];
        read(h, y[m][n], kept, m, n);
        left[m][n] = a_of_result<Math>(h);
      }
    product_by_units<Math>(left, s_ + at_.w2);
  }

  template <class Math>
  __device__ __forceinline__ void product_by_units(
      const OperandA<Math> (&left)[kRowTiles][kUnitTiles], const float* weight) {
#pragma unroll
    for (int j = 0; j < kNarrowDepth; ++j) {
      float d[kRowTiles][4] = {};
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n) {
        const auto right =
            b_across<Math>(weight + (unit0() + 8 * n) * kNarrowStride + 8 * j, kNarrowStride, l_);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) Math::multiply(d[m], left[m][n], right);
      }
#pragma unroll
      for (int m = 0; m < kRowTiles; ++m)
        store_result(part() + m * 16 * kNarrowPartStride + 8 * j, kNarrowPartStride, d[m], l_);
    }
  }

  // ---- losses ----

  // body(row, first column) for the rows of a warp, four at a time: eight lanes per row, four
  // columns per lane.
  template <class Body>
  __device__ __forceinline__ void for_rows(const Body& body) {
    for (int n = 4 * l_.warp; n < kNarrowRows; n += 4 * at_.warps)
      body(n + l_.lane / kRowLanes, l_.lane % kRowLanes * 4);
  }

  // Four columns of a row, summed over the warps' parts.
  __device__ __forceinline__ void sum_parts(float (&sum)[4], int n, int column) {
    const float* at = s_ + at_.parts + n * kNarrowPartStride + column;
#pragma unroll 4
    for (int w = 0; w < at_.warps; ++w) {
      const float4 part = *reinterpret_cast<const float4*>(at + w * kNarrowPart);
      sum[0] += part.x, sum[1] += part.y, sum[2] += part.z, sum[3] += part.w;
    }
  }

  __device__ __forceinline__ void loss(int rows_here) {
    const float share = 1.0f / static_cast<float>(r_.N), smoothing = r_.label_smoothing;
    const float each = smoothing / static_cast<float>(z_.C);
    for_rows([&](int n, int c0) {
      const float4 bias = *reinterpret_cast<const float4*>(s_ + at_.b2 + c0);
      float z[4] = {bias.x, bias.y, bias.z, bias.w};
      sum_parts(z, n, c0);
      float largest = -INFINITY;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (c0 + i >= z_.C) z[i] = -INFINITY;
        largest = fmaxf(largest, z[i]);
      }
      largest = warp_reduce<kRowLanes>(largest, Larger{});
      const int target = ids(buffer_, z_.T)[n] - c0;
      float power[4], sum = 0.0f, hit = 0.0f, spread = 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        z[i] -= largest;
        power[i] = expf(z[i]);
        sum += power[i];
        if (i == target) hit = z[i];
        if (c0 + i < z_.C) spread += z[i];
      }
      sum = warp_reduce<kRowLanes>(sum, Plus{});
      hit = warp_reduce<kRowLanes>(hit, Plus{});
      float loss = logf(sum) - (1.0f - smoothing) * hit;
      if (smoothing > 0.0f) loss -= each * warp_reduce<kRowLanes>(spread, Plus{});
      const bool is_row = n < rows_here;
      if (c0 == 0) s_[at_.losses + n] = is_row ? loss : 0.0f;
      float d[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float wanted = each + (i == target ? 1.0f - smoothing : 0.0f);
        d[i] = is_row && c0 + i < z_.C ? (power[i] / sum - wanted) * share : 0.0f;
      }
      *reinterpret_cast<float4*>(s_ + at_.dlogits + n * kNarrowStride + c0) =
          make_float4(d[0], d[1], d[2], d[3]);
    });
  }

  // Adds the losses of a block of rows, one per lane; writes the mean of the batch to `mean`.
  template <bool sums>
  __device__ __forceinline__ void add_loss(float loss, bool first, float* mean) {
    double sum = warp_sum(static_cast<double>(loss));
    double* before = reinterpret_cast<double*>(s_ + at_.norms);
    if (l_.lane > 0) return;
    if (sums && !first) sum += *before;
    if (mean)
      *mean = static_cast<float>(sum / static_cast<double>(r_.N));
    else
      *before = sum;
  }
};

}  // namespace
}  // namespace mlpkern::cuda
