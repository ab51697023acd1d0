// linear_tanh: the matrix products of forward and backward by mma.sync, one kernel for all.
//
//   forward  output (N, H) = tanh(input weight^T + bias)   A = input   B = weight  over K
//   dinput   dinput (N, K) = dz weight                      A = dz      B = weight  over H
//   dweight  dweight (H, K) = dz^T input, dbias = sum dz    A = dz      B = input   over N
// with dz = (1 - output^2) doutput formed in shared memory from the tiles of both.
//
// A block computes the tiles (kRows, kCols) of C numbered blockIdx.x, blockIdx.x + gridDim.x, ...;
// every block has at least one. Each tile is a loop over slabs of the reduction. Slabs arrive by
// cp.async in a ring of stages that continues past the end of a tile, so that the next tile loads
// while this one finishes. The warps form a grid over the tile; accumulators stay in registers
// until bias, tanh and the store. dweight cuts N into pieces, fixed by the shape, whose sums
// elements.cuh adds.
#pragma once

#include "cuda/device/launch.cuh"
#include "cuda/linear_tanh/shape.cuh"
#include "cuda/linear_tanh/store.cuh"

namespace mlpkern::cuda {

// A position in the sequence of slabs of a block's tiles.
template <class Shape, class Tile>
struct Cursor {
  int64_t tile, row, col, at, end;  // [at, end) of the reduction is left of this tile

  template <class T>
  __device__ __forceinline__ void open(const Product<T>& p, int64_t number) {
    tile = number;
    const int64_t across = (p.cols + Tile::kCols - 1) / Tile::kCols;
    const int64_t down = (p.rows + Tile::kRows - 1) / Tile::kRows;
    const int64_t piece = p.pieces == 1 ? 0 : tile / (across * down);
    const int64_t rest = tile - piece * across * down;
    row = rest / across * Tile::kRows;
    col = rest % across * Tile::kCols;
    at = piece * p.piece_depth;
    end = at + p.piece_depth < p.depth ? at + p.piece_depth : p.depth;
  }
  __device__ __forceinline__ bool last() const { return at + Shape::kSlab >= end; }
  template <class T>
  __device__ __forceinline__ void next(const Product<T>& p) {
    if (last())
      open(p, tile + gridDim.x);
    else
      at += Shape::kSlab;
  }
};

template <class Shape, class Tile, class T>
__device__ __forceinline__ void copy_slab(T* stage, const Product<T>& p,
                                          const Cursor<Shape, Tile>& c) {
  const Window a =
      Shape::kAlongA ? Window{c.row, p.rows, c.at, c.end} : Window{c.at, c.end, c.row, p.rows};
  const Window b =
      Shape::kAlongB ? Window{c.col, p.cols, c.at, c.end} : Window{c.at, c.end, c.col, p.cols};
  copy_tile<typename Shape::A, Tile::kThreads>(stage, p.a, a);
  stage += Shape::A::kElements;
  if constexpr (Shape::kSlope) {
    copy_tile<typename Shape::A, Tile::kThreads>(stage, p.y, a);
    stage += Shape::A::kElements;
  }
  copy_tile<typename Shape::B, Tile::kThreads>(stage, p.b, b);
}

template <class Math, Kind kind, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    linear_tanh_product_kernel(Product<typename Math::type> p, int64_t tiles) {
  using Shape = ProductShape<Math, kind, Tile>;
  using T = typename Math::type;
  T* const stages = dynamic_shared<T>();
  float* const shared_sums =
      reinterpret_cast<float*>(stages + Tile::kStages * Shape::kStageElements);
  const int lane = static_cast<int>(threadIdx.x % 32), warp_id = static_cast<int>(threadIdx.x / 32);
  const int warp_row = warp_id / Tile::kWarpsN * Shape::kRowTiles * 16;
  const int warp_col = warp_id % Tile::kWarpsN * Shape::kColTiles * 8;

  Cursor<Shape, Tile> load, use;
  load.open(p, blockIdx.x);
  use = load;
#pragma unroll
  for (int s = 0; s < Tile::kStages - 1; ++s) {
    if (load.tile < tiles) {
      copy_slab(stages + s * Shape::kStageElements, p, load);
      load.next(p);
    }
    cp_async_commit();
  }

  typename Shape::Warp warp;
  warp.clear();
  float sums[kChunk<T>] = {};
  int stage = 0;
  do {
    T* const a = stages + stage * Shape::kStageElements;
    const T* const b = a + (Shape::kSlope ? 2 : 1) * Shape::A::kElements;
    cp_async_wait<Tile::kStages - 2>();
    if constexpr (Shape::kSlope)
      form_dz<Math, typename Shape::A, Tile::kThreads>(a, a + Shape::A::kElements, sums);
    __syncthreads();  // all threads see the slab, and have finished the previous one
    if (load.tile < tiles) {
      const int free = stage == 0 ? Tile::kStages - 1 : stage - 1;
      copy_slab(stages + free * Shape::kStageElements, p, load);
      load.next(p);
    }
    cp_async_commit();

    const int64_t left = use.end - use.at;
    const int steps =
        left < Shape::kSlab ? static_cast<int>(left + kStep<T> - 1) / kStep<T> : Shape::kSteps;
    warp.add_slab(a + warp_row * (Shape::kAlongA ? Shape::A::kStride : 1), Shape::A::kStride,
                  b + warp_col * (Shape::kAlongB ? Shape::B::kStride : 1), Shape::B::kStride, steps,
                  lane);

    if (use.last()) {
      const int64_t row = use.row + warp_row + lane / 4, col = use.col + warp_col + lane % 4 * 2;
      if constexpr (kind == Kind::dweight) {
        const int64_t begin = use.end > use.at ? use.at / p.piece_depth * p.piece_depth : 0;
        float* partial = p.partial + (p.pieces == 1 ? 0 : begin / p.piece_depth) * p.partial_stride;
        if (p.pieces == 1)
          store_tile<Shape, kind, Math::kSplit>(p.output, p, warp, row, col, begin, use.end);
        else
          store_tile<Shape, kind, Math::kSplit>(partial, p, warp, row, col, begin, use.end);
        if (p.sum_bias && use.col == 0)
          store_dbias<Shape, Tile>(shared_sums, p, use.row, partial + p.rows * p.cols, sums);
#pragma unroll
        for (int j = 0; j < kChunk<T>; ++j) sums[j] = 0;
      } else {
        store_tile<Shape, kind, Math::kSplit>(p.output, p, warp, row, col, 0, use.end);
      }
      warp.clear();
    }
    use.next(p);
    stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
  } while (use.tile < tiles);
}

// Enqueues a product with as many blocks as run at once.
template <class Math, Kind kind, class Tile>
cudaError_t launch_product(const Product<typename Math::type>& p, void* stream) {
  using Shape = ProductShape<Math, kind, Tile>;
  const int64_t across = (p.cols + Tile::kCols - 1) / Tile::kCols;
  const int64_t down = (p.rows + Tile::kRows - 1) / Tile::kRows;
  const int64_t tiles = across * down * p.pieces;
  const int64_t most = int64_t{Tile::kBlocks} * multiprocessors();
  return launch<linear_tanh_product_kernel<Math, kind, Tile>>(
      tiles < most ? tiles : most, Tile::kThreads, Shape::kShared, stream, p, tiles);
}

}  // namespace mlpkern::cuda
