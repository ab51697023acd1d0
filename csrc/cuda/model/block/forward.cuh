// The forward pass of a block: from ids of kBlockRows rows to their logits.
//
// A row past the end of the batch has ids of -1; it reads zeros and its results are not used. The
// sign of a zero marks a dropped element: -0 in the input of a layer; a kept element is never -0.
#pragma once

#include "cuda/device/philox.cuh"
#include "cuda/device/tanh.cuh"
#include "cuda/model/block/layout.cuh"
#include "cuda/model/block/product.cuh"

namespace mlpkern::cuda {
namespace {

__device__ __forceinline__ float masked(float x, uint32_t word, const Dropout& d) {
  return word < d.threshold ? copysignf(x * 0.0f, -1.0f) : x * d.scale + 0.0f;
}
__device__ __forceinline__ bool is_dropped(float x) { return __float_as_uint(x) == 0x80000000u; }

// The dropout of a layer in a step. Shared memory holds that of the first step of the call, because
// registers are needed for the product. Row n of the block of rows is row first_row + n.
struct BlockDropout {
  const Dropout* at;
  uint32_t layer;  // added to that of *at
  int64_t steps;   // since
  int first_row;

  __device__ __forceinline__ bool drops() const { return at && at->drops; }
  __device__ __forceinline__ void words(uint32_t (&word)[4], int unit, int n) const {
    Dropout d = later(*at, steps);
    d.stream_layer += layer;
    philox(word, d, static_cast<uint32_t>(unit) / 4, static_cast<uint32_t>(first_row + n));
  }
};

// One thread of a block that holds a model.
template <class Math>
struct BlockModel {
  const ModelSizes& z;
  const BlockLayout& at;
  float* const s;  // the shared memory
  const Lane l;
  const int warp;

  __device__ __forceinline__ BlockModel(const ModelSizes& sizes, const BlockLayout& layout,
                                        float* shared)
      : z(sizes), at(layout), s(shared), warp(static_cast<int>(threadIdx.x) / kWarp) {}

  __device__ __forceinline__ const BlockLayout::Layer& layer(int i) const { return at.layer[i]; }
  __device__ __forceinline__ float* read(int i) const { return s + at.layer[i].read; }

  // From here on all padding that is read is zero.
  __device__ __forceinline__ void clear() const {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < at.total; i += kBlockThreads) s[i] = 0.0f;
  }

  // body(in shared memory, in global memory) for each element of the tensors of a model, which are
  // `offset` floats into shared memory; leaves out tensor i where bit i of `skipped` is set.
  template <class Body>
  __device__ __forceinline__ void for_elements(int offset, const ModelTensors& tensors,
                                               int64_t model, uint32_t skipped,
                                               const Body& body) const {
#pragma unroll 1
    for (int i = 0; i < 2 * z.L + 3; ++i) {
      if (skipped >> i & 1) continue;
      float* const global = tensors.at(i, model);
      float* here = s + offset;
      int rows = 1, columns = z.V * z.D, stride = 0;
      if (i > 0) {
        const BlockLayout::Layer& from = layer((i - 1) / 2);
        const bool is_weight = i % 2 == 1;
        here += is_weight ? from.weight : from.bias;
        columns = is_weight ? from.inputs : from.outputs;
        if (is_weight) rows = from.outputs, stride = from.stride;
      }
#pragma unroll 1
      for (int e = static_cast<int>(threadIdx.x); e < rows * columns; e += kBlockThreads)
        body(here[e / columns * stride + e % columns], global[e]);
    }
  }
  __device__ __forceinline__ void load(int offset, const ModelTensors& tensors,
                                       int64_t model) const {
    for_elements(offset, tensors, model, 0, [](float& here, const float& there) { here = there; });
  }
  __device__ __forceinline__ void store(int offset, const ModelTensors& tensors, int64_t model,
                                        uint32_t frozen) const {
    for_elements(offset, tensors, model, frozen,
                 [](const float& here, float& there) { there = here; });
  }

  // The input of layer 0.
  __device__ __forceinline__ void gather(const int* ids, const BlockDropout& d) const {
#pragma unroll 1
    for (int n = warp; n < kBlockRows; n += kBlockWarps)
#pragma unroll 1
      for (int i = l.lane; i < layer(0).inputs; i += kWarp) {
        const int t = i / z.D, id = ids[n * (z.T + 1) + t];
        float x = id < 0 ? 0.0f : s[id * z.D + i - t * z.D];
        if (d.drops()) {
          uint32_t word[4];
          d.words(word, i, n);
          x = masked(x, word_of(word, i & 3), *d.at);
        }
        read(0)[n * layer(0).stride + i] = x;
      }
  }

  // The output of hidden layer i, which is the input of the next layer.
  __device__ __forceinline__ void hidden(int i, const BlockDropout& d) const {
    const BlockLayout::Layer& from = layer(i);
    const int stride = layer(i + 1).stride;
    for (int column = kBlockTile * warp; column < from.outputs;
         column += kBlockTile * kBlockWarps) {
      float y[2][2][4] = {};
      add_product<Math, false>(y, read(i), from.stride, s + from.weight + column * from.stride,
                               from.stride, from.stride - 4, l);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int c = column + 8 * j + 2 * l.t;
        const float2 bias = *reinterpret_cast<const float2*>(s + from.bias + c);
#pragma unroll
        for (int half = 0; half < 4; ++half) {
          const int n = 8 * half + l.g;
          const float* const pair = y[half / 2][j] + half % 2 * 2;
          float2 value =
              make_float2(tanh_accurate(pair[0] + bias.x), tanh_accurate(pair[1] + bias.y));
          if (d.drops()) {
            uint32_t word[4];
            d.words(word, c, n);
            const bool upper = c & 2;
            value.x = masked(value.x, upper ? word[2] : word[0], *d.at);
            value.y = masked(value.y, upper ? word[3] : word[1], *d.at);
          }
          *reinterpret_cast<float2*>(read(i + 1) + n * stride + c) = value;
        }
      }
    }
  }

  // A product (kBlockRows, columns) in `parts` parts, to the place of the logits: a (kBlockRows,
  // depth) along its rows, b as in add_product. Rows of the result are `stride` apart.
  template <bool across>
  __device__ __forceinline__ void product_in_parts(const float* a, int a_stride, const float* b,
                                                   int b_stride, int stride, int parts) const {
    float* const to = read(z.L + 1);
    const int tiles = (stride - 4) / 8;  // of columns
    for (int unit = warp; unit < parts * tiles * (kBlockRows / 16); unit += kBlockWarps) {
      const int tile = unit % tiles, rest = unit / tiles;
      const int row = rest % (kBlockRows / 16) * 16, p = rest / (kBlockRows / 16);
      const DepthPart k(a_stride - 4, p, parts);
      float d[1][1][4] = {};
      add_product<Math, across>(
          d, a + row * a_stride + k.begin, a_stride,
          b + (across ? k.begin * b_stride + 8 * tile : 8 * tile * b_stride + k.begin), b_stride,
          k.depth, l);
      store_result(to + p * at.part + row * stride + 8 * tile, stride, d[0][0], l);
    }
  }

  __device__ __forceinline__ void logits() const {
    const BlockLayout::Layer& from = layer(z.L);
    product_in_parts<false>(read(z.L), from.stride, s + from.weight, from.stride,
                            layer(z.L + 1).stride, at.logit_parts);
  }

  struct Softmax {
    float largest, sum;  // of exp(logit - largest)
  };

  // Adds the parts of row n of the logits and the bias, into part 0. A lane has the classes lane,
  // lane + 32, ... and reads only those.
  __device__ __forceinline__ Softmax softmax(int n) const {
    const float* const bias = s + layer(z.L).bias;
    float* const z_n = read(z.L + 1) + n * layer(z.L + 1).stride;
    Softmax result{-INFINITY, 0.0f};
#pragma unroll 1
    for (int c = l.lane; c < z.C; c += kWarp) {
      float logit = z_n[c];
#pragma unroll 1
      for (int p = 1; p < at.logit_parts; ++p) logit += z_n[p * at.part + c];
      z_n[c] = logit += bias[c];
      result.largest = fmaxf(result.largest, logit);
    }
    result.largest = warp_max(result.largest);
#pragma unroll 1
    for (int c = l.lane; c < z.C; c += kWarp) result.sum += expf(z_n[c] - result.largest);
    result.sum = warp_sum(result.sum);
    return result;
  }

 private:
  __device__ __forceinline__ static uint32_t word_of(const uint32_t (&word)[4], int which) {
    return which == 0 ? word[0] : which == 1 ? word[1] : which == 2 ? word[2] : word[3];
  }
};

}  // namespace
}  // namespace mlpkern::cuda
