// tanh(rows weight^T + bias) for rows from anywhere. The weight is packed once into column panels
// (lanes are hidden units). A task copies a block of rows to where it stays in L2, multiplies, and
// adds bias and tanh while a tile is in L1. Meanwhile the rows of the next block and the memory for
// its results are prefetched into L2.
#pragma once

#include "cpu/threads/scratch.h"
#include "cpu/vector/gemm.h"
#include "cpu/vector/vmath.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kRowBlockBytes = 1 << 19;  // packed rows of one task: a quarter of L2
constexpr int64_t kMostTiles = 8;            // of one task
constexpr int64_t kThreadsInMind = 4;

struct LinearTanhForwardPlan {
  int64_t block_rows, blocks;
  int64_t packed_weight, packed_rows;  // elements, the latter of one worker
};

LinearTanhForwardPlan plan(const LinearTanhForward& a) {
  LinearTanhForwardPlan p;
  const int64_t lanes = lanes_of(a.dtype), bytes = acc_size(a.dtype);
  const int64_t depth = a.K > 0 ? a.K : 1;
  const int64_t most = clamp(kRowBlockBytes / (bytes * depth * kTileRows), 2, kMostTiles);
  // The number of tiles per block that leaves threads idle for the shortest time at the end.
  int64_t least = a.N * kThreadsInMind + most * kTileRows * kThreadsInMind;
  for (int64_t tiles = most; tiles > most * 3 / 4; --tiles) {
    const int64_t rows = tiles * kTileRows, blocks = ceil_div(a.N, rows);
    const int64_t busy = round_up(blocks, kThreadsInMind) * rows;
    if (busy >= least) continue;
    least = busy;
    p.block_rows = rows;
    p.blocks = blocks;
  }
  p.packed_weight = round_up(round_up(a.H, lanes) * depth, 16);
  const int64_t block = p.block_rows < a.N ? p.block_rows : a.N;
  p.packed_rows =
      (block + 1) * (round_up(depth, lanes) + lanes);  // pack_block may write past a row
  return p;
}

size_t workspace(const LinearTanhForward& a) {
  const LinearTanhForwardPlan p = plan(a);
  return (p.packed_weight + workers(p.blocks) * p.packed_rows) * acc_size(a.dtype) + 256;
}

// Runs the forward. pack_block(rows, row_step, first, count) copies rows [first, first + count) of
// the input to `rows`, row_step apart, or returns false: then the block is skipped.
template <class T, class PackBlock>
void linear_tanh_forward_by_blocks(const LinearTanhForward& a, const PackBlock& pack_block) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const LinearTanhForwardPlan p = plan(a);
  const ColumnPanels<A> panels(a.H);
  const int64_t row_step = row_step_for<A>(a.K);
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  T* output = static_cast<T*>(a.output);
  Scratch<A> scratch{static_cast<char*>(a.workspace)};
  A* packed_weight = scratch.take(p.packed_weight);
  A* packed_rows = scratch.take(0);

  const auto pack_panel = [&](int64_t panel) {
    pack_transposed(packed_weight + panels.offset(panel, a.K), panels.step(panel),
                    weight + panel * kTileColumns<A> * a.weight_row_stride, a.weight_row_stride,
                    panels.width(panel), a.K);
  };
  parallel_for_work(panels.count, 8 * a.H * a.K, pack_panel);

  const auto run_block = [&](int64_t block, int64_t worker) {
    const int64_t first = block * p.block_rows;
    const int64_t left = a.N - first;
    const RowTiles cut(left < p.block_rows ? left : p.block_rows);
    A* rows = packed_rows + worker * p.packed_rows;
    if (!pack_block(rows, row_step, first, cut.rows)) return;
    const int64_t next = first + p.block_rows;
    const int64_t next_rows = a.N - next < p.block_rows ? a.N - next : p.block_rows;
    Ahead ahead;
    ahead.add_rows(static_cast<const T*>(a.input), next, next_rows, a.K, a.input_row_stride);
    ahead.add_rows(output, next, next_rows, a.H, a.H);
    ahead.spread_over(cut.count * panels.count * a.K);
    Tile<A> tiles[kBlockTiles];
    for (int64_t panel = 0; panel < panels.count; ++panel) {
      const int64_t column = panel * kTileColumns<A>, width = panels.width(panel);
      vec_t<A> bias_lanes[kTileVectors] = {};
      if (bias)
        for (int64_t c = 0; c < width; c += L)
          bias_lanes[c / L] = load_part(bias + column + c, width - c < L ? width - c : L);
      const auto finish = [&](int64_t i, const Tile<A>& tile) {
        T* to = output + (first + cut.begin(i)) * a.H + column;
        for (int64_t r = 0; r < cut.height(i); ++r, to += a.H)
          for (int64_t c = 0; c < width; c += L) {
            const vec_t<A> y = tanh(load(tile.row(r) + c) + bias_lanes[c / L]);
            if (width - c >= L)
              store(to + c, y);
            else
              store_part(to + c, y, width - c);
          }
      };
      multiply_panel(tiles, cut, a.K, rows, row_step, packed_weight + panels.offset(panel, a.K),
                     panels.vectors(panel), ahead, finish);
    }
  };
  parallel_for_work(p.blocks, a.N * a.K * a.H, run_block);
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
