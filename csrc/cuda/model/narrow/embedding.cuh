// train_steps of narrow models: the gradient of the embedded rows, and that of the embedding, which
// is a product with ones where ids are equal.
#pragma once

#include "cuda/model/narrow/weights.cuh"

namespace mlpkern::cuda {
namespace {

struct NarrowEmbedding : NarrowWeights {
  using NarrowWeights::NarrowWeights;

  // The warp's part (32, inputs) = dz w1 over its units; dz is rounded.
  template <class Math>
  __device__ __forceinline__ void dx_part(const float (&dz)[kRowTiles][kUnitTiles][4]) {
    OperandA<Math> left[kRowTiles][kUnitTiles];
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m)
#pragma unroll
      for (int n = 0; n < kUnitTiles; ++n)
        left[m][n] = a_of_result<Math, Values::rounded>(dz[m][n]);
    product_by_units<Math>(left, s_ + at_.w1);
  }

  __device__ __forceinline__ void sum_dx(Block here) {
    const int row0 = here.b * kNarrowRows;
    for_rows([&](int n, int k0) {
      float sum[4] = {};
      sum_parts(sum, n, k0);
      if (input_drops_) {
        const Dropout dropout = later(dropouts()[0], here.s);
        uint32_t word[4];
        philox(word, dropout, static_cast<uint32_t>(k0 / 4), static_cast<uint32_t>(row0 + n));
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] *= word[i] < dropout.threshold ? 0.0f : dropout.scale;
      }
      *reinterpret_cast<float4*>(s_ + at_.dx + n * kNarrowStride + k0) =
          make_float4(sum[0], sum[1], sum[2], sum[3]);
    });
  }

  // ---- the embedding: tiles of 16 ids and 8 columns distributed over warps ----

  // body(element, its gradient from this block of rows) for the elements of the warp's tiles.
  template <class Body>
  __device__ __forceinline__ void for_embedding(const Body& body) {
    const int across = (z_.D + 7) / 8, tiles = (z_.V + 15) / 16 * across;
    for (int tile = l_.warp; tile < tiles; tile += at_.warps) {
      const int v0 = tile / across * 16, d0 = tile % across * 8;
      float big[4] = {}, small[4] = {};
      for (int p = 0; p < z_.T; ++p) {
        const int* symbols = ids(buffer_, p) + 2 * l_.t;
        const float* at = s_ + at_.dx + 2 * l_.t * kNarrowStride + p * z_.D + d0 + l_.g;
#pragma unroll
        for (int k = 0; k < kNarrowRows; k += 8) {
          // ones where the id is that of the row; the gradient in two parts, exact to float32
          const int id[2] = {symbols[k], symbols[k + 1]};
          uint32_t one[4];
#pragma unroll
          for (int i = 0; i < 4; ++i)
            one[i] = __float_as_uint(id[i >> 1] == v0 + l_.g + 8 * (i & 1) ? 1.0f : 0.0f);
          const uint32_t raw[2] = {__float_as_uint(at[k * kNarrowStride]),
                                   __float_as_uint(at[(k + 1) * kNarrowStride])};
          Split::Operand<2> right;
          right.set(raw);
          mma_tf32(big, one, right.big);
          mma_tf32(small, one, right.small);
        }
      }
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int v = v0 + l_.g + 8 * (r >> 1), column = d0 + 2 * l_.t + (r & 1);
        if (v < z_.V && column < z_.D) body(v * z_.D + column, big[r] + small[r]);
      }
    }
  }

  __device__ __forceinline__ void add_embedding_gradient(bool first) {
    float* total = s_ + at_.dembedding;
    for_embedding([&](int i, float d) { total[i] = first ? d : total[i] + d; });
  }

  template <Rule rule>
  __device__ __forceinline__ void update_embedding(const StepConstants& c, bool first) {
    const float* before = s_ + at_.dembedding;
    for_embedding([&](int i, float d) {
      update<rule>(c, s_[at_.embedding + i], first ? d : before[i] + d, 0, i, true);
    });
  }
};

}  // namespace
}  // namespace mlpkern::cuda
