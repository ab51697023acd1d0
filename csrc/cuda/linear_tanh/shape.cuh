// linear_tanh: the arguments of a product, and its tiling.
#pragma once

#include "cuda/linear_tanh/mma.cuh"
#include "cuda/linear_tanh/operand.cuh"

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
  bool sum_bias;  // dweight: whether to compute dbias,
  T* dbias;       // of the one piece
};

// A tile of rows x cols for warps_m x warps_n warps, with `stages` slabs of `slab` bytes of the
// reduction, and `blocks` blocks at once on a multiprocessor.
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
  static constexpr Values kValuesA = kSlope ? Values::rounded : Values::any;  // see form_dz
  using Warp = WarpProduct<Math, kAlongA, kValuesA, kAlongB, kRowTiles, kColTiles, kSteps>;

  static constexpr int kStageElements = (kSlope ? 2 : 1) * A::kElements + B::kElements;
  // Threads with the same columns of dz, whose sums are added in shared memory.
  static constexpr bool kSums = kind == Kind::dweight;
  static_assert(!kSums || Tile::kThreads % A::kRowChunks == 0);
  static constexpr int kSumThreads = kSums ? Tile::kThreads / A::kRowChunks : 0;
  static constexpr size_t kStagesBytes = sizeof(T) * kStageElements * Tile::kStages;
  static constexpr size_t kShared = kStagesBytes + sizeof(float) * kSumThreads * Tile::kRows;
};

}  // namespace mlpkern::cuda
