// The product of train_steps and evaluate: finish(row, column, values) for every vector of a b, for
// operands with any steps. Operands beyond the caches are prefetched: every multiplication fetches
// some of what later ones read.
#pragma once

#include "cpu/vector/gemm.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Rows `step` elements apart.
template <class A>
struct Matrix {
  A* data = nullptr;
  int64_t step = 0;
  MLPKERN_INLINE A* row(int64_t r) const { return data + r * step; }
};

// A range [begin, end).
struct Range {
  int64_t begin, end;
};

// Terms of one chunk of a sum: 7 KB of a and 16 KB of b, so that the next panel of b reaches L1
// before the last one leaves it (152 GFLOP/s a core at 1024 x 1024; 142 with 200 or 384 terms).
constexpr int64_t kMostTerms = 128;
constexpr int64_t kGroupPanels = 8;      // column panels that share a tile's rows in L1
constexpr int64_t kNearBytes = 1 << 19;  // of both operands, which then stay in L2 by themselves
constexpr int64_t kSlabBytes = 1 << 20;  // of b, half of L2: beyond that it is cut into slabs
constexpr int64_t kDeepTerms = 256;      // of such a slab; meanwhile the next one is prefetched

// A tile of exactly Rows rows and kTileVectors vectors whose depth is one chunk: its sums go to
// finish out of registers, since with little depth a round trip through memory takes as long as the
// product. The copy of finish keeps its pointers in registers between the stores.
template <class A, int Rows, class Finish>
__attribute__((noinline)) void finish_tile(int64_t row, int64_t column, int64_t depth, const A* a,
                                           int64_t row_step, int64_t k_step, const A* b,
                                           int64_t b_step, const Finish& given) {
  const Finish finish = given;
  sum_terms<A, Rows, kTileVectors, kChains<Rows, kTileVectors>>(
      depth, a, row_step, k_step, b, b_step,
      [&](int r, int v, vec_t<A> sum) { finish(row + r, column + v * kLanes<A>, sum); }, [] {});
}

constexpr int kTallRows = kTileRows > 8 ? kTileRows - 3 : kTileRows - 1;

// Calls finish_tile for a tall tile; returns false for other tiles, for which it is not compiled.
template <class A, class... Arguments>
MLPKERN_INLINE bool finish_tall_tile(int64_t height, const Arguments&... arguments) {
  constexpr int R = kTileRows;
  if (height == R) return finish_tile<A, R>(arguments...), true;
  if (height == R - 1) return finish_tile<A, R - 1>(arguments...), true;
  if constexpr (R > 8) {
    if (height == R - 2) return finish_tile<A, R - 2>(arguments...), true;
    if (height == R - 3) return finish_tile<A, R - 3>(arguments...), true;
  }
  return false;
}

// Left and right operand of a product of `depth` terms: a(row, k) = a[row * row_step + k * k_step],
// b(k, column) = b[k * b_step + column]. With a tile_step each tile of a has its own first row,
// tile_step apart.
template <class A>
struct Operands {
  const A* a;
  int64_t row_step, k_step;
  int64_t depth;
  const A* b;
  int64_t b_step;
  int64_t tile_step = 0;
  bool one_chain = false;  // where the height of a tile depends on how threads share the rows

  MLPKERN_INLINE const A* tile(const RowTiles& cut, int64_t t) const {
    return a + (tile_step ? t * tile_step : cut.begin(t) * row_step);
  }
};

// A part of a product: panels that share a tile's rows, and terms.
struct Slab {
  Range panels, terms;
};

// What each multiplication of a product prefetches into L2: once for each of the two lines of a
// panel a column of the next slab of b, otherwise a part of the rows of a of the next tile.
// (Prefetching the destination of the sums as well gains nothing.)
template <class A>
class Upcoming {
 public:
  Upcoming(const Operands<A>& of, const RowTiles& cut, const Range& tiles)
      : of_(of), cut_(cut), tiles_(tiles) {}

  // `next` is the slab after this one, without panels if there is none.
  void begin_slab(const Slab& slab, const Slab& next, int64_t chunk) {
    slab_ = slab;
    next_b_ = of_.b + next.terms.begin * of_.b_step + next.panels.begin * kTileColumns<A>;
    const int64_t terms = slab.terms.end - slab.terms.begin;
    const int64_t panels = slab.panels.end - slab.panels.begin;
    const int64_t all = tiles_.end - tiles_.begin, tiles = all < kDueTiles ? all : kDueTiles;
    const int64_t first = tiles_.end - tiles;  // late enough for L2 to hold both slabs
    for (int64_t p = 0; p < panels; ++p) {
      const bool due = p < next.panels.end - next.panels.begin;
      due_[0][p] = due ? first + p * tiles / (2 * panels) : -1;
      due_[1][p] = due && tiles > 1 ? due_[0][p] + tiles / 2 : -1;
    }
    parts_ = ceil_div(terms, chunk) * panels / kTileRows;
    if (parts_ < 1) parts_ = 1;
    part_terms_ = ceil_div(terms, parts_);
    part_step_ = ceil_div(part_terms_ * kBytes, chunk);
  }

  void begin_tile(int64_t t) {
    tile_ = t;
    row_ = part_ = 0;
    next_height_ = t + 1 < tiles_.end ? cut_.height(t + 1) : 0;
    next_a_ = of_.tile(cut_, t + 1) + slab_.terms.begin * of_.k_step;
  }

  // For the multiplication of the terms from `done` on by panel p.
  MLPKERN_INLINE Stretch take(int64_t p, int64_t done) {
    const auto at = [](const A* from) { return reinterpret_cast<const char*>(from); };
    const int64_t column = p * kTileColumns<A>, panel = p - slab_.panels.begin;
    const int64_t term = done - slab_.terms.begin;
    const bool second = tile_ == due_[1][panel];
    if (second || tile_ == due_[0][panel])
      return {at(next_b_ + term * of_.b_step + panel * kTileColumns<A>) + 64 * second,
              of_.b_step * kBytes};
    if (of_.k_step != 1) {  // a line holds the rows of a tile, mostly
      if (panel == 0 && next_height_ > 0)
        return {at(next_a_ + (next_height_ - 1) * of_.row_step + term * of_.k_step),
                of_.k_step * kBytes};
    } else if (row_ < next_height_) {
      const A* from = next_a_ + row_ * of_.row_step + part_ * part_terms_;
      if (++part_ == parts_) part_ = 0, ++row_;
      return {at(from), part_step_};
    }
    return {at(of_.b + done * of_.b_step + column), 0};  // in the caches anyway
  }

 private:
  static constexpr int64_t kBytes = sizeof(A);
  static constexpr int64_t kDueTiles = 4 * kGroupPanels;
  const Operands<A>& of_;
  const RowTiles& cut_;
  const Range& tiles_;
  Slab slab_ = {};
  const A *next_a_ = nullptr, *next_b_ = nullptr;
  int64_t due_[2][kGroupPanels];                        // the tiles where panels are due
  int64_t tile_ = 0, next_height_ = 0;                  // 0: no next tile
  int64_t row_ = 0, part_ = 0;                          // of the next tile, to be prefetched
  int64_t parts_ = 1, part_terms_ = 0, part_step_ = 0;  // of a row
};

// finish(row, column, values) for every vector of the product. Covers the tiles and column panels
// given. finish holds its state by value. Each sum is formed in chunks of equal size, at most
// kMostTerms, in order.
//
// Rows of a that are far apart in k are packed where several panels use them. With `waiting`, a
// matrix of the size of the result, the terms of a deep product are cut once more, in the outermost
// loop, so that a slab of b stays in L2 for all tiles; `waiting` holds the unfinished sums.
template <class A, class Finish>
MLPKERN_INLINE void product(const RowTiles& cut, Range tiles, const Operands<A>& of,
                            const ColumnPanels<A>& panels, Range columns, const Finish& finish,
                            const Matrix<A>& waiting = {}) {
  constexpr int64_t L = kLanes<A>;
  const int64_t depth = of.depth, b_step = of.b_step;
  Tile<A> sums[kGroupPanels];
  alignas(64) A packed[kTileRows * kMostTerms + L];
  const int64_t terms = ceil_div(depth, depth > 0 ? ceil_div(depth, kMostTerms) : 1);
  const int64_t all_panels = columns.end - columns.begin;
  const int64_t group_panels = all_panels < kGroupPanels ? all_panels : kGroupPanels;
  const bool deep = waiting.data && depth * group_panels * 2 * kVectorBytes > kSlabBytes;
  const int64_t parts = deep ? (depth + kDeepTerms / 2) / kDeepTerms : 1;
  const int64_t part = parts > 1 ? round_up(ceil_div(depth, parts), terms) : depth;
  const int64_t elements = depth * (cut.rows + all_panels * kTileColumns<A>);
  const bool far = elements * static_cast<int64_t>(sizeof(A)) > kNearBytes;
  Upcoming<A> upcoming(of, cut, tiles);

  // The sums of one tile for the panels and terms of a slab.
  const auto run_tile = [&](int64_t t, const Slab& slab) {
    const Range group = slab.panels, ks = slab.terms;
    const int64_t row = cut.begin(t), height = cut.height(t);
    const auto for_sums = [&](const auto& body) {
      for (int64_t p = group.begin; p < group.end; ++p)
        for (int64_t r = 0; r < height; ++r)
          for (int64_t v = 0; v < panels.vectors(p); ++v)
            body(sums[p - group.begin].row(r) + v * L,
                 waiting.row(row + r) + p * kTileColumns<A> + v * L);
    };
    if (ks.begin > 0) for_sums([](A* sum, const A* from) { store(sum, load(from)); });
    for (int64_t done = ks.begin; done == 0 || done < ks.end; done += terms) {
      const int64_t chunk = ks.end - done < terms ? ks.end - done : terms;
      const bool complete = done + chunk >= depth;
      const A* a_chunk = of.tile(cut, t) + done * of.k_step;
      int64_t a_row_step = of.row_step, a_k_step = of.k_step;
      if (of.k_step != 1 && !of.tile_step && group.end - group.begin > 2) {
        for (int64_t k = 0; k < chunk; ++k)
          for (int64_t r = 0; r < height; r += L)  // past the height: the next k overwrites it
            store(packed + k * height + r, load(a_chunk + k * of.k_step + r));
        a_chunk = packed;
        a_row_step = 1;
        a_k_step = height;
      }
      for (int64_t p = group.begin; p < group.end; ++p) {
        Tile<A>& sum = sums[p - group.begin];
        const int64_t column = p * kTileColumns<A>, vectors = panels.vectors(p);
        const A* b_chunk = of.b + done * b_step + column;
        if constexpr (sizeof(A) == 4)
          if (depth <= kMostTerms && vectors == kTileVectors &&
              !(of.one_chain && kChains<kTallRows, kTileVectors> > 1) &&
              finish_tall_tile<A>(height, row, column, depth, a_chunk, a_row_step, a_k_step,
                                  b_chunk, b_step, finish))
            continue;
        const Stretch ahead =
            far ? upcoming.take(p, done) : Stretch{reinterpret_cast<const char*>(b_chunk), 0};
        multiply(sum, done == 0, height, vectors, chunk, a_chunk, a_row_step, a_k_step, b_chunk,
                 b_step, ahead, of.one_chain);
        if (!complete) continue;
        for (int64_t r = 0; r < height; ++r)
          for (int64_t v = 0; v < vectors; ++v)
            finish(row + r, column + v * L, load(sum.row(r) + v * L));
      }
    }
    if (ks.end < depth) for_sums([](const A* sum, A* to) { store(to, load(sum)); });
  };

  const auto slab_at = [&](int64_t k, int64_t first) {
    const int64_t last = first + kGroupPanels, end = k + part;
    return Slab{{first, last < columns.end ? last : columns.end}, {k, end < depth ? end : depth}};
  };
  for (int64_t k = 0; k == 0 || k < depth; k += part)
    for (int64_t first = columns.begin; first < columns.end; first += kGroupPanels) {
      const Slab slab = slab_at(k, first);
      const bool last_group = slab.panels.end == columns.end;
      const Slab next = !last_group        ? slab_at(k, slab.panels.end)
                        : k + part < depth ? slab_at(k + part, columns.begin)
                                           : Slab{};
      if (far) upcoming.begin_slab(slab, next, terms);
      for (int64_t t = tiles.begin; t < tiles.end; ++t) {
        if (far) upcoming.begin_tile(t);
        run_tile(t, slab);
      }
    }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
