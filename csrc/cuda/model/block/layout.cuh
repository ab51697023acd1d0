// A model in the shared memory of one block: which models fit, and the layout. Used by
// train_steps.cuh and evaluate.cu.
//
// Matrices are padded with zeros to multiples of 16 rows and columns, so that products need no
// bounds. Strides of rows are 4 more than a multiple of 16 floats: then the lanes of a warp, eight
// rows of four adjacent elements or four pairs of rows of eight, fall into 32 different banks.
#pragma once

#include "cuda/device/philox.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/model/mlp.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kBlockWarps = 16;  // so that a thread may have 128 registers
constexpr int kBlockThreads = kBlockWarps * kWarp;
constexpr int kBlockRows = 32;  // of the batch at a time
constexpr int kBlockTile = 16;

constexpr int64_t padded(int64_t n) { return (n + kBlockTile - 1) / kBlockTile * kBlockTile; }
constexpr int64_t padded_stride(int64_t n) { return padded(n) + 4; }

// The parts of a training run that may be in shared memory or in global memory.
struct BlockNeeds {
  bool gradients;  // a copy of them: several blocks of rows in a batch, or clipping
  int moments;     // 0 ... 2
};

// Offsets and sizes in floats. Parameters, gradients and moments have the same layout; `weight` and
// `bias` count from the beginning of each, where the embedding (V, D) is, not padded. Whatever can
// be computed before the launch is here: computed in a kernel it would occupy registers.
struct BlockLayout {
  struct Layer {
    int inputs, outputs;
    int stride;  // of rows of the weight and of `read`
    int read;    // the input of the layer, (kBlockRows, stride), then its gradient
    int weight;  // (padded outputs, stride)
    int bias;    // (padded outputs)
  };
  Layer layer[kMostHidden + 2];  // the entry after the last layer describes the logits

  int parameters;          // number of floats; their offset is 0
  int gradients, moments;  // -1 where they are in global memory
  // The logits, and later the gradient of the embedded batch, are sums of this many parts, `part`
  // floats apart, the first at the place of the logits.
  int logit_parts, dx_parts, part;
  int embedding_tiles, embedding_columns;  // (16, 8) of the gradient; those side by side
  int row_losses;                          // (kBlockRows); kMostWarps floats
  int constants;                           // StepConstants of the current step
  int loss;                                // of the current step so far: a double
  int dropouts;                            // Dropout of the input and of the hidden layers
  int ids;  // (2, kBlockRows, T + 1) int32: of this block of rows and the next
  int total;
  bool fits;
};

static_assert(kMostWarps <= kBlockRows, "row_losses also serve sums over the block");

// The number of parts into which a product of few columns cuts its sums, so that every warp has an
// output tile (16, 8).
inline int parts_wanted(int64_t columns) {
  const int64_t tiles = kBlockRows / 16 * (padded(columns) / 8);
  return tiles < kBlockWarps ? static_cast<int>(kBlockWarps / tiles) : 1;
}

// The layout for a block with at most `limit` bytes. The optional arrays take the remaining room in
// this order: further parts, gradients, moments.
inline BlockLayout block_layout(const ModelSizes& z, const BlockNeeds& needs, size_t limit) {
  BlockLayout layout{};
  int64_t at = 0;
  const auto room = static_cast<int64_t>(limit / sizeof(float));
  const auto take = [&at](int64_t count) {
    const int64_t begin = at;
    at += (count + 3) / 4 * 4;  // rows begin at multiples of 16 bytes
    return static_cast<int>(begin);
  };
  const auto take_if_room = [&](bool wanted, int64_t count) {
    return wanted && at + count <= room ? take(count) : -1;
  };
  take(int64_t{z.V} * z.D);
  for (int l = 0; l <= z.L; ++l) {
    BlockLayout::Layer& layer = layout.layer[l];
    layer.inputs = z.inputs(l), layer.outputs = z.outputs(l);
    layer.stride = static_cast<int>(padded_stride(layer.inputs));
    layer.weight = take(padded(layer.outputs) * layer.stride);
    layer.bias = take(padded(layer.outputs));
  }
  const int64_t parameters = at;
  layout.parameters = static_cast<int>(parameters);
  for (int l = 0; l <= z.L; ++l)
    layout.layer[l].read = take(int64_t{kBlockRows} * layout.layer[l].stride);
  layout.row_losses = take(kBlockRows);
  layout.constants = take(4);
  layout.loss = take(2);
  layout.dropouts = take(2 * sizeof(Dropout) / sizeof(float));
  layout.ids = take(2 * kBlockRows * (int64_t{z.T} + 1));
  BlockLayout::Layer& loss = layout.layer[z.L + 1];
  loss.inputs = z.C;
  loss.stride = static_cast<int>(padded_stride(z.C));
  const int stride = loss.stride > layout.layer[0].stride ? loss.stride : layout.layer[0].stride;
  const int64_t part = int64_t{kBlockRows} * stride;
  layout.part = static_cast<int>(part);
  loss.read = take(part);
  layout.fits = at <= room;
  layout.logit_parts = layout.dx_parts = 1;
  const int logit_parts = parts_wanted(z.C), dx_parts = parts_wanted(z.inputs(0));
  for (int parts = 2; parts <= logit_parts || parts <= dx_parts; ++parts) {
    if (take_if_room(true, part) < 0) break;
    if (parts <= logit_parts) layout.logit_parts = parts;
    if (parts <= dx_parts) layout.dx_parts = parts;
  }
  layout.gradients = take_if_room(needs.gradients, parameters);
  layout.moments = take_if_room(needs.moments > 0, needs.moments * parameters);
  layout.embedding_columns = (z.D + 7) / 8;
  layout.embedding_tiles = (z.V + 15) / 16 * layout.embedding_columns;
  layout.total = static_cast<int>(at);
  return layout;
}

}  // namespace
}  // namespace mlpkern::cuda
