// The backward pass of a block: from the gradient of the logits to those of all parameters.
//
// Layer l > 0: a warp owns 16 columns of the weight and of the layer's input. The gradient of those
// columns of the weight needs no other columns of the input, so the gradient of the input
// overwrites the input without another barrier. Layer 0 is often narrow: the warps share the tiles
// of all its gradients. The gradient of the embedding is a product with ones where ids are equal:
// no atomics.
#pragma once

#include "cuda/model/block/update.cuh"

namespace mlpkern::cuda {
namespace {

template <class Math>
class BlockBackward {
 public:
  __device__ __forceinline__ BlockBackward(const BlockUpdate<Math>& update, const int* ids,
                                           const Dropout* dropouts)
      : u_(update), b_(update.b), l_(update.b.l), ids_(ids), dropouts_(dropouts) {}

  // Call it after a barrier, with the gradient of the logits in part 0; a barrier must follow.
  __device__ __forceinline__ void run() const {
    for (int i = b_.z.L; i > 0; --i) {
      wide_layer(i);
      __syncthreads();
    }
    const BlockLayout::Layer& layer = b_.layer(0);
    b_.template product_in_parts<true>(b_.read(1), b_.layer(1).stride, b_.s + layer.weight,
                                       layer.stride, layer.stride, b_.at.dx_parts);
    __syncthreads();
    first_layer();
  }

 private:
  // The gradient of the outputs of layer i overwrites them, which are the input of layer i + 1.
  __device__ __forceinline__ void wide_layer(int i) const {
    const BlockLayout::Layer &layer = b_.layer(i), &next = b_.layer(i + 1);
    const int strips = (layer.stride - 4) / kBlockTile;
    const int units = strips + bias_units(i);
    for (int unit = b_.warp; unit < units; unit += kBlockWarps) {
      if (unit >= strips) {
        bias_sums(i, unit - strips);
        continue;
      }
      const int column = unit * kBlockTile;
      float dx[2][2][4] = {};
      add_product<Math, true>(dx, b_.read(i + 1), next.stride, b_.s + layer.weight + column,
                              layer.stride, next.stride - 4, l_);
      __syncwarp();
      weight_tiles(i, 0, next.stride - 4, column);
      __syncwarp();
      through_tanh(b_.read(i) + column, layer.stride, dx);
    }
  }

  __device__ __forceinline__ void first_layer() const {
    const int columns = (b_.layer(0).stride - 4) / kBlockTile;
    const int weights = columns * ((b_.layer(1).stride - 4) / kBlockTile);
    const int embeddings = b_.at.embedding_tiles, units = embeddings + weights + bias_units(0);
    for (int unit = b_.warp; unit < units; unit += kBlockWarps) {
      const int weight = unit - embeddings;
      if (weight < 0) {
        embedding_tile(unit);
      } else if (weight < weights) {
        const int row = weight / columns * kBlockTile;
        weight_tiles(0, row, row + kBlockTile, weight % columns * kBlockTile);
      } else {
        bias_sums(0, weight - weights);
      }
    }
  }

  // dweight = dz^T x in rows begin ... end - 1 and 16 columns.
  __device__ __forceinline__ void weight_tiles(int i, int begin, int end, int column) const {
    constexpr int kSteps = kBlockRows / 8;
    const BlockTensor t = u_.weight(i);
    const int stride = b_.layer(i).stride, dz_stride = b_.layer(i + 1).stride;
    const float* const x = b_.read(i) + column;
    const float* const dz = b_.read(i + 1);
    float right[kSteps][2]
               [2];  // split again for each tile: split operands need twice the registers
#pragma unroll
    for (int k = 0; k < kSteps; ++k)
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          right[k][j][e] = x[(8 * k + 2 * l_.t + e) * stride + 8 * j + l_.g];
#pragma unroll 1
    for (int row = begin; row < end; row += kBlockTile) {
      float d[2][4] = {}, rest[2][4] = {};
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        const OperandA<Math> left = a_across<Math>(dz + 8 * k * dz_stride + row, dz_stride, l_);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const uint32_t raw[2] = {__float_as_uint(right[k][j][0]),
                                   __float_as_uint(right[k][j][1])};
          OperandB<Math> operand;
          operand.set(raw);
          multiply_apart<Math>(d[j], rest[j], left, operand);
        }
      }
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) d[j][e] += rest[j][e];
      u_.take(t, row, column, d);
    }
  }

  // The gradient before the tanh, from x, the output of the hidden layer and its dropout.
  __device__ __forceinline__ void through_tanh(float* x, int stride,
                                               const float (&dx)[2][2][4]) const {
    const float back = 1.0f / dropouts_[1].scale;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float2* const at =
            reinterpret_cast<float2*>(x + (8 * i + l_.g) * stride + 8 * j + 2 * l_.t);
        const float2 y = *at;
        *at = make_float2(slope(y.x, back) * dx[i / 2][j][i % 2 * 2],
                          slope(y.y, back) * dx[i / 2][j][i % 2 * 2 + 1]);
      }
  }
  __device__ __forceinline__ float slope(float x, float back) const {
    if (!dropouts_[1].drops) return 1.0f - x * x;
    const float tanh = x * back;
    return is_dropped(x) ? 0.0f : (1.0f - tanh * tanh) * dropouts_[1].scale;
  }

  __device__ __forceinline__ int bias_units(int i) const {
    return (b_.layer(i).outputs + kWarp - 1) / kWarp;
  }
  // dbias of 32 columns.
  __device__ __forceinline__ void bias_sums(int i, int unit) const {
    const int column = unit * kWarp + l_.lane, stride = b_.layer(i + 1).stride;
    if (column >= b_.layer(i).outputs) return;
    const float* const dz = b_.read(i + 1) + column;
    float sum = 0.0f;
#pragma unroll 8
    for (int n = 0; n < kBlockRows; ++n) sum += dz[n * stride];
    u_.take(u_.bias(i), column, sum);
  }

  // dembedding (16 ids, 8 columns) = ones (16, rows) times dx (rows, 8), one position after
  // another.
  // Ones are exact in TF32 and dx is the sum of two TF32 numbers, so the products are those of
  // float32.
  __device__ __forceinline__ void embedding_tile(int unit) const {
    const int D = b_.z.D, T = b_.z.T, tiles = b_.at.embedding_columns;
    const int id = unit / tiles * 16 + l_.g, column = unit % tiles * 8;
    float sum[1][4] = {};
#pragma unroll 1
    for (int t = 0; t < T; ++t) {
      float d[4] = {};
#pragma unroll
      for (int n = 0; n < kBlockRows; n += 8) {
        const int row = n + l_.t;
        const int upper = ids_[row * (T + 1) + t], lower = ids_[(row + 4) * (T + 1) + t];
        const uint32_t one = __float_as_uint(1.0f);
        const uint32_t ones[4] = {upper == id ? one : 0, upper == id + 8 ? one : 0,
                                  lower == id ? one : 0, lower == id + 8 ? one : 0};
        uint32_t raw[2] = {0, 0};
        if (column + l_.g < D) {
          raw[0] = __float_as_uint(dx(row, t * D + column + l_.g));
          raw[1] = __float_as_uint(dx(row + 4, t * D + column + l_.g));
        }
        Split::Operand<2> right;
        right.set(raw);
        mma_tf32(d, ones, right.big);
        mma_tf32(d, ones, right.small);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[0][e] += d[e];
    }
    u_.take(u_.embedding(), id - l_.g, column, sum);
  }
  // The gradient of column i of the embedded row.
  __device__ __forceinline__ float dx(int row, int i) const {
    const int at = row * b_.layer(0).stride + i;
    const float* const part = b_.read(b_.z.L + 1) + at;
    float sum = part[0];
#pragma unroll 1
    for (int p = 1; p < b_.at.dx_parts; ++p) sum += part[p * b_.at.part];
    if (!dropouts_[0].drops) return sum;
    return is_dropped(b_.read(0)[at]) ? 0.0f : sum * dropouts_[0].scale;
  }

  const BlockUpdate<Math>& u_;
  const BlockModel<Math>& b_;
  const Lane& l_;
  const int* const ids_;
  const Dropout* const dropouts_;  // of the input and the hidden layers
};

}  // namespace
}  // namespace mlpkern::cuda
