// linear_tanh: which size of tiles a product takes, and into how many pieces dweight cuts the
// batch. Both follow from the shape alone.
#pragma once

#include "cuda/linear_tanh/plain.cuh"
#include "cuda/linear_tanh/tilings.cuh"

namespace mlpkern::cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

constexpr int64_t kBlocksAtOnce = 132;  // enough for the largest devices; part of the results
constexpr int64_t kPieceRows = 128;     // fewest rows worth a piece of their own

enum class Size { small, wide, square };

// body(Type<Tiling>{}) for a size.
template <class Math, Kind kind, class Body>
auto for_size(Size size, const Body& body) {
  using Of = Tilings<Math, kind>;
  if constexpr (!std::is_same_v<typename Of::Square, typename Of::Wide>)
    if (size == Size::square) return body(Type<typename Of::Square>{});
  if (size != Size::small) return body(Type<typename Of::Wide>{});
  return body(Type<typename Of::Small>{});
}

// The larger tiles, if they are enough for a whole device and overhang C little. `repeats` blocks
// can share the reduction of a tile.
template <class Math, Kind kind>
Size choose(int64_t rows, int64_t cols, int64_t repeats) {
  Size best = Size::small;
  double least = 0;
  for (Size size : {Size::small, Size::wide, Size::square})
    for_size<Math, kind>(size, [&](auto tiling) {
      using Tile = typename decltype(tiling)::type;
      const int64_t down = ceil_div(rows, Tile::kRows), across = ceil_div(cols, Tile::kCols);
      const double area = static_cast<double>(down * Tile::kRows * across * Tile::kCols);
      if (size == Size::small) least = 1.1 * area;
      if (size == Size::small || area > least) return;
      if (down * across * repeats < kBlocksAtOnce * 3 / 4) return;
      best = size, least = area;
    });
  return best;
}

// How dweight cuts the batch.
struct Pieces {
  int64_t rows, count;
};

template <class Tile>
Pieces cut(int64_t N, int64_t H, int64_t K) {
  const int64_t tiles = ceil_div(H, Tile::kRows) * ceil_div(K, Tile::kCols);
  const int64_t wanted = kBlocksAtOnce * Tile::kBlocks / tiles;
  const int64_t most = N / kPieceRows;
  const int64_t count = wanted < most ? wanted : most;
  if (count <= 1) return {N > 0 ? N : 1, 1};
  const int64_t rows = round_up(ceil_div(N, count), 64);
  return {rows, ceil_div(N, rows)};
}

struct DweightPlan {
  Size size;
  Pieces pieces;
  int64_t partial_stride;
};

template <class Math>
DweightPlan dweight_plan(const LinearTanhBackward& a) {
  DweightPlan plan;
  plan.size = choose<Math, Kind::dweight>(a.H, a.K, ceil_div(a.N, 2 * kPieceRows));
  plan.pieces = for_size<Math, Kind::dweight>(
      plan.size, [&](auto tiling) { return cut<typename decltype(tiling)::type>(a.N, a.H, a.K); });
  plan.partial_stride = round_up(a.H * a.K + a.H, 4);
  return plan;
}

DweightPlan plain_dweight_plan(const LinearTanhBackward& a) {
  using Tile = Tiling<kPlainTile, kPlainTile, 1, 1, 0, 0, 4>;
  return {Size::small, cut<Tile>(a.N, a.H, a.K), a.H * a.K};
}

}  // namespace
}  // namespace mlpkern::cuda
