// linear_tanh: the matrix products of forward and backward by mma.sync, one kernel for all.
//
//   forward  output (N, H) = tanh(input weight^T + bias)   A = input   B = weight  over K
//   dinput   dinput (N, K) = dz weight                      A = dz      B = weight  over H
//   dweight  dweight (H, K) = dz^T input, dbias = sum dz    A = dz      B = input   over N
// with dz = (1 - output^2) doutput formed in shared memory from the tiles of both.
//
// A block computes one tile (kRows, kCols) of C after another: tile number blockIdx.x, plus
// gridDim.x, ... Each is a loop over slabs of the reduction; slabs come by cp.async into a ring of
// stages which runs on over the end of a tile, so that the next tile loads while this one ends.
// Warps form a grid over the tile; accumulators stay in registers until bias, tanh and the store.
// dweight cuts N into pieces, fixed by the shape, whose sums linear_tanh_pieces.cuh adds up.
//
// Alone: nvcc -std=c++17 -arch=sm_90 -Icsrc -cubin csrc/cuda/linear_tanh.cu -Xptxas -v
#pragma once

#include "cuda/launch.cuh"
#include "cuda/linear_tanh_mma.cuh"
#include "cuda/linear_tanh_operand.cuh"
#include "cuda/tanh.cuh"

namespace mlpkern::cuda {

enum class Kind { forward, dinput, dweight };

template <class T>
struct Product {
  Matrix<T> a, y, b;            // a: input or doutput; y: output, where A is dz
  int64_t rows, cols, depth;    // of C, and of the reduction
  int64_t piece_depth, pieces;  // of the reduction; one piece but for dweight
  const T* bias;                // forward: (cols,) or null
  T* output;                    // C (rows, cols), of the one piece
  acc_t<T>* partial;            // or C and dbias of each piece, partial_stride apart
  int64_t partial_stride;
  bool sum_bias;  // dweight: whether dbias is wanted,
  T* dbias;       // of the one piece
};

// Sizes of a tile and who works on it: warps_m x warps_n warps, `stages` slabs of `slab` bytes of
// the reduction, `blocks` blocks at once on a multiprocessor.
template <int rows, int cols, int warps_m, int warps_n, int slab, int stages, int blocks>
struct Tiling {
  static constexpr int kRows = rows, kCols = cols, kWarpsM = warps_m, kWarpsN = warps_n;
  static constexpr int kSlabBytes = slab, kStages = stages, kBlocks = blocks;
  static constexpr int kThreads = 32 * warps_m * warps_n;
};

template <class Math, Kind kind, class Tile>
struct ProductShape {
  using T = typename Math::type;
  static constexpr bool kAlongA = kind != Kind::dweight, kAlongB = kind == Kind::forward;
  static constexpr bool kSlope = kind != Kind::forward;
  static constexpr int kSlab = Tile::kSlabBytes / static_cast<int>(sizeof(T));
  static constexpr int kSteps = kSlab / kStep<T>;
  // Eight rows of 16 bytes for ldmatrix, or four rows of eight words, must meet no bank twice.
  static constexpr int kAcross = sizeof(T) == 4 ? 32 : 16;
  using A = TileShape<T, kAlongA ? Tile::kRows : kSlab, kAlongA ? kSlab : Tile::kRows,
                      kAlongA ? 16 : kAcross>;
  using B = TileShape<T, kAlongB ? Tile::kCols : kSlab, kAlongB ? kSlab : Tile::kCols,
                      kAlongB ? 16 : kAcross>;
  static constexpr int kRowTiles = Tile::kRows / Tile::kWarpsM / 16;
  static constexpr int kColTiles = Tile::kCols / Tile::kWarpsN / 8;
  static_assert(kRowTiles * 16 * Tile::kWarpsM == Tile::kRows);
  static_assert(kColTiles * 8 * Tile::kWarpsN == Tile::kCols);
  using Warp = WarpProduct<Math, kAlongA, kAlongB, kRowTiles, kColTiles, kSteps>;

  static constexpr int kStageElements = (kSlope ? 2 : 1) * A::kElements + B::kElements;
  // Threads that meet the same columns of dz, whose sums are added up in shared memory.
  static constexpr bool kSums = kind == Kind::dweight;
  static_assert(!kSums || Tile::kThreads % A::kRowChunks == 0);
  static constexpr int kSumThreads = kSums ? Tile::kThreads / A::kRowChunks : 0;
  static constexpr size_t kStagesBytes = sizeof(T) * kStageElements * Tile::kStages;
  static constexpr size_t kShared = kStagesBytes + sizeof(float) * kSumThreads * Tile::kRows;
};

// A place in the sequence of slabs of a block's tiles.
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

// What an infinite operand has made NaN in Split, in float32: inf * small is NaN where small is 0.
template <Kind kind, class T>
__device__ __forceinline__ float exact_sum(const Product<T>& p, int64_t row, int64_t col,
                                           int64_t at, int64_t end) {
  float sum = 0;
#pragma unroll 1
  for (int64_t i = at; i < end; ++i) {
    const int64_t n = kind == Kind::dweight ? i : row, r = kind == Kind::dweight ? row : i;
    float a = p.a.data[n * p.a.stride + r];
    if constexpr (kind != Kind::forward) {
      const float y = p.y.data[n * p.y.stride + r];
      a *= fmaf(-y, y, 1.0f);
    }
    const float b =
        kind == Kind::forward ? p.b.data[col * p.b.stride + i] : p.b.data[i * p.b.stride + col];
    sum = fmaf(a, b, sum);
  }
  return sum;
}

// One or both of two adjacent elements.
template <class U>
__device__ __forceinline__ void store_pair(U* to, float first, float second, bool both,
                                           bool aligned) {
  const float pair[2] = {first, second};
  if (both && aligned) {
    store_vector(to, pack<U>(pair));
  } else {
    to[0] = from_acc<U>(first);
    if (both) to[1] = from_acc<U>(second);
  }
}

// Writes the warp's part of a tile; (row, col) is the place of the lane's first element.
template <class Shape, Kind kind, bool repair, class U, class T>
__device__ __forceinline__ void store_tile(U* output, const Product<T>& p,
                                           typename Shape::Warp& warp, int64_t row, int64_t col,
                                           int64_t begin, int64_t end) {
  const bool aligned =
      p.cols % 2 == 0 && reinterpret_cast<uintptr_t>(output) % (2 * sizeof(U)) == 0;
  bool nan = false;
#pragma unroll
  for (int j = 0; j < Shape::kColTiles; ++j) {
    const int64_t c = col + j * 8;
    if (c >= p.cols) break;
    const bool both = c + 1 < p.cols;
    float bias[2] = {0, 0};
    if constexpr (kind == Kind::forward) {
      if (p.bias) {
        bias[0] = to_acc(p.bias[c]);
        if (both) bias[1] = to_acc(p.bias[c + 1]);
      }
    }
#pragma unroll
    for (int i = 0; i < Shape::kRowTiles; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t r = row + i * 16 + half * 8;
        if (r >= p.rows) continue;
        float first = warp.d[i][j][2 * half], second = warp.d[i][j][2 * half + 1];
        nan |= isnan(first) || isnan(second);
        if constexpr (kind == Kind::forward) {
          first = tanh_of<T>(first + bias[0]);
          second = tanh_of<T>(second + bias[1]);
        }
        store_pair(output + r * p.cols + c, first, second, both, aligned);
      }
  }
  if constexpr (repair) {
    if (!nan) return;
#pragma unroll 1
    for (int e = 0; e < Shape::kRowTiles * Shape::kColTiles * 4; ++e) {
      const int64_t r = row + e / 2 % 2 * 8 + e / 4 % Shape::kRowTiles * 16;
      const int64_t c = col + e % 2 + e / (4 * Shape::kRowTiles) * 8;
      if (r >= p.rows || c >= p.cols || !isnan(output[r * p.cols + c])) continue;
      const float sum = exact_sum<kind>(p, r, c, begin, end);
      if constexpr (kind == Kind::forward)
        output[r * p.cols + c] = tanh_of<T>(sum + (p.bias ? p.bias[c] : 0.0f));
      else
        output[r * p.cols + c] = sum;
    }
  }
}

// dbias of one tile's rows of C from the column sums of dz that the threads hold.
template <class Shape, class Tile, class T>
__device__ __forceinline__ void store_dbias(float* shared, const Product<T>& p, int64_t row,
                                            float* partial, const float (&sums)[kChunk<T>]) {
  const int thread = static_cast<int>(threadIdx.x);
  const int slot = thread / Shape::A::kRowChunks, chunk = thread % Shape::A::kRowChunks;
#pragma unroll
  for (int j = 0; j < kChunk<T>; ++j) shared[slot * Tile::kRows + chunk * kChunk<T> + j] = sums[j];
  __syncthreads();
  for (int h = thread; h < Tile::kRows && row + h < p.rows; h += Tile::kThreads) {
    float sum = shared[h];
    for (int i = 1; i < Shape::kSumThreads; ++i) sum += shared[i * Tile::kRows + h];
    if (p.pieces == 1)
      p.dbias[row + h] = from_acc<T>(sum);
    else
      partial[row + h] = sum;
  }
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
  while (use.tile < tiles) {
    T* const a = stages + stage * Shape::kStageElements;
    const T* const b = a + (Shape::kSlope ? 2 : 1) * Shape::A::kElements;
    cp_async_wait<Tile::kStages - 2>();
    if constexpr (Shape::kSlope)
      form_dz<typename Shape::A, Tile::kThreads>(a, a + Shape::A::kElements, sums);
    __syncthreads();  // the slab is there for all, and the one before it is done with
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
  }
}

// Enqueues a product; a grid of as many blocks as run at once.
template <class Math, Kind kind, class Tile>
cudaError_t launch_product(const Product<typename Math::type>& p, void* stream) {
  using Shape = ProductShape<Math, kind, Tile>;
  const int64_t across = (p.cols + Tile::kCols - 1) / Tile::kCols;
  const int64_t down = (p.rows + Tile::kRows - 1) / Tile::kRows;
  const int64_t tiles = across * down * p.pieces;
  const int64_t most = int64_t{Tile::kBlocks} * multiprocessors();
  const unsigned blocks = static_cast<unsigned>(tiles < most ? tiles : most);
  return launch<linear_tanh_product_kernel<Math, kind, Tile>>(blocks, Tile::kThreads,
                                                              Shape::kShared, stream, p, tiles);
}

}  // namespace mlpkern::cuda
