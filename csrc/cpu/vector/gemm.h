// Register-tiled matrix product: tile = sum_k a(row, k) * b(k, column).
//
// Rows of a tile are broadcast, columns are vector lanes:
//   a: element (row, k) at a[row * row_step + k * k_step], any steps
//   b: element (k, column) at b[k * b_step + column], columns padded to whole vectors
// A tile has at most kTileRows rows (isa/) by 2 vectors, as many accumulators as registers allow. A
// full AVX-512 tile reaches 177 to 190 GFLOP/s in L1 on an Intel core.
// Sums run in chunks of kDepthChunk terms whose results are added: as accurate as the product of a
// BLAS library, and a chunk of a column panel (32 KB) fits L1.
#pragma once

#include "cpu/vector/ahead.h"
#include "cpu/vector/lanes.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int kTileVectors = 2;
constexpr int64_t kDepthChunk = 256;

template <class A>
constexpr int64_t kTileColumns = kTileVectors * kLanes<A>;

// The tile in memory: row r, column c at values[r * kTileColumns + c].
template <class A>
struct alignas(64) Tile {
  A values[kTileRows * kTileColumns<A>];
  MLPKERN_INLINE const A* row(int64_t r) const { return values + r * kTileColumns<A>; }
  MLPKERN_INLINE A* row(int64_t r) { return values + r * kTileColumns<A>; }
};

// Row pointers, three to a base register: base, base + step, base + 2 * step are addressing modes,
// so 14 rows need 5 pointers. Without the hint the compiler folds them into one base and 13
// offsets, which it spills to the stack.
template <class A, int Rows>
struct RowPointers {
  static constexpr int kBases = (Rows + 2) / 3;
  const char* base[kBases];
  int64_t row_bytes, k_bytes;

  MLPKERN_INLINE RowPointers(const A* a, int64_t row_step, int64_t k_step)
      : row_bytes(row_step * sizeof(A)), k_bytes(k_step * sizeof(A)) {
#pragma GCC unroll 16
    for (int i = 0; i < kBases; ++i) {
      base[i] = reinterpret_cast<const char*>(a + 3 * i * row_step);
      __asm__("" : "+r"(base[i]));
    }
  }
  MLPKERN_INLINE A at(int row) const {
    return *reinterpret_cast<const A*>(base[row / 3] + (row % 3) * row_bytes);
  }
  MLPKERN_INLINE void advance() {
#pragma GCC unroll 16
    for (int i = 0; i < kBases; ++i) base[i] += k_bytes;
  }
};

// Accumulators of one sum. Tiles of few rows split it over several, added at the end of a chunk: a
// single chain would wait for the latency of each addition, and round worse than a dot product of
// a BLAS library.
template <int Rows, int Vectors>
constexpr int kChains = Rows * Vectors >= 8   ? 1
                        : Rows * Vectors >= 4 ? 2
                                              : 4;

// Sums the terms of a tile of Rows by Vectors in registers and calls finish(r, v, sum) for each
// vector. each_term() runs with every term.
template <class A, int Rows, int Vectors, int Chains, class Finish, class EachTerm>
MLPKERN_INLINE void sum_terms(int64_t depth, const A* a, int64_t row_step, int64_t k_step,
                              const A* b, int64_t b_step, const Finish& finish,
                              const EachTerm& each_term) {
  constexpr int kCount = Chains;
  RowPointers<A, Rows> rows(a, row_step, k_step);
  vec_t<A> sum[kCount][Rows][Vectors];
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i)
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[i][r][v] = vec_t<A>{};
  const auto add_term = [&](auto& into) {
    vec_t<A> column[Vectors];
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) column[v] = load(b + v * kLanes<A>);
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
      const vec_t<A> x = splat(rows.at(r));
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) into[r][v] += x * column[v];
    }
    each_term();
    rows.advance();
    b += b_step;
  };
  int64_t k = 0;
  for (; k + kCount <= depth; k += kCount) {
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) add_term(sum[i]);
  }
  for (; k < depth; ++k) add_term(sum[0]);
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) {
      vec_t<A> total = sum[0][r][v];
      if constexpr (kCount == 2) total += sum[1][r][v];
      if constexpr (kCount == 4) total = (total + sum[1][r][v]) + (sum[2][r][v] + sum[3][r][v]);
      finish(r, v, total);
    }
}

template <class A, int Rows, int Vectors, int Chains>
void multiply_fixed(Tile<A>& tile, bool first, int64_t depth, const A* a, int64_t row_step,
                    int64_t k_step, const A* b, int64_t b_step, Stretch ahead) {
  sum_terms<A, Rows, Vectors, Chains>(
      depth, a, row_step, k_step, b, b_step,
      [&](int r, int v, vec_t<A> sum) {
        A* to = tile.row(r) + v * kLanes<A>;
        store(to, first ? sum : load(to) + sum);
      },
      [&] { ahead.next(); });
}

template <class A>
using Multiply = void (*)(Tile<A>&, bool, int64_t, const A*, int64_t, int64_t, const A*, int64_t,
                          Stretch);

template <class A, int Rows>
Multiply<A> pick_multiply(int64_t rows, int64_t vectors, bool one_chain) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return pick_multiply<A, Rows - 1>(rows, vectors, one_chain);
  }
  if (one_chain)
    return vectors == 1 ? multiply_fixed<A, Rows, 1, 1> : multiply_fixed<A, Rows, kTileVectors, 1>;
  return vectors == 1 ? multiply_fixed<A, Rows, 1, kChains<Rows, 1>>
                      : multiply_fixed<A, Rows, kTileVectors, kChains<Rows, kTileVectors>>;
}

// tile[rows, vectors] = a b over at most kDepthChunk terms, or += unless `first`, with a prefetch
// of `ahead` for each. Columns past `vectors` whole vectors are unspecified. With one_chain the
// bits of a row do not depend on the height of its tile.
template <class A>
void multiply(Tile<A>& tile, bool first, int64_t rows, int64_t vectors, int64_t depth, const A* a,
              int64_t row_step, int64_t k_step, const A* b, int64_t b_step, const Stretch& ahead,
              bool one_chain = false) {
  pick_multiply<A, kTileRows>(rows, vectors, one_chain)(tile, first, depth, a, row_step, k_step, b,
                                                        b_step, ahead);
}

template <class A>
void multiply(Tile<A>& tile, bool first, int64_t rows, int64_t vectors, int64_t depth, const A* a,
              int64_t row_step, int64_t k_step, const A* b, int64_t b_step) {
  const Stretch near{reinterpret_cast<const char*>(b), 0};
  multiply(tile, first, rows, vectors, depth, a, row_step, k_step, b, b_step, near);
}

template <class A>
void multiply(Tile<A>& tile, bool first, int64_t rows, int64_t vectors, int64_t depth, const A* a,
              int64_t row_step, int64_t k_step, const A* b, int64_t b_step, Ahead& ahead) {
  multiply(tile, first, rows, vectors, depth, a, row_step, k_step, b, b_step, ahead.take(depth, b));
}

// Cuts `rows` into tiles of nearly equal height: 32 rows are 11 + 11 + 10, not 14 + 14 + 4.
struct RowTiles {
  int64_t rows, count;
  explicit RowTiles(int64_t rows_) : rows(rows_), count(ceil_div(rows_, kTileRows)) {}
  MLPKERN_INLINE int64_t begin(int64_t tile) const { return rows * tile / count; }
  MLPKERN_INLINE int64_t height(int64_t tile) const { return begin(tile + 1) - begin(tile); }
};

// Cuts `columns` into panels of kTileColumns; the last has as many vectors as it needs. A packed
// panel holds depth rows of `vectors` whole vectors.
template <class A>
struct ColumnPanels {
  int64_t columns, count;
  explicit ColumnPanels(int64_t columns_)
      : columns(columns_), count(ceil_div(columns_, kTileColumns<A>)) {}
  MLPKERN_INLINE int64_t width(int64_t panel) const {
    const int64_t left = columns - panel * kTileColumns<A>;
    return left < kTileColumns<A> ? left : kTileColumns<A>;
  }
  MLPKERN_INLINE int64_t vectors(int64_t panel) const { return ceil_div(width(panel), kLanes<A>); }
  MLPKERN_INLINE int64_t step(int64_t panel) const { return vectors(panel) * kLanes<A>; }
  MLPKERN_INLINE int64_t padded() const { return round_up(columns, kLanes<A>); }
  MLPKERN_INLINE static int64_t offset(int64_t panel, int64_t depth) {
    return panel * kTileColumns<A> * depth;
  }
};

// The tiles of rows (row_step apart, k adjacent) times one packed column panel; finish(i, tile)
// takes the i-th tile when its sum is complete. The loop over chunks of depth is the outermost, so
// that a chunk of the panel stays in L1 for all tiles; each tile is finished at once, so that its
// stores drain during the next product.
template <class A, class Finish>
MLPKERN_INLINE void multiply_panel(Tile<A>* tiles, const RowTiles& cut, int64_t depth,
                                   const A* rows, int64_t row_step, const A* panel, int64_t vectors,
                                   Ahead& ahead, const Finish& finish) {
  const int64_t panel_step = vectors * kLanes<A>;
  for (int64_t done = 0; done == 0 || done < depth; done += kDepthChunk) {
    const int64_t chunk = depth - done < kDepthChunk ? depth - done : kDepthChunk;
    for (int64_t i = 0; i < cut.count; ++i) {
      multiply(tiles[i], done == 0, cut.height(i), vectors, chunk,
               rows + cut.begin(i) * row_step + done, row_step, 1, panel + done * panel_step,
               panel_step, ahead);
      if (done + chunk >= depth) finish(i, tiles[i]);
    }
  }
}

template <class A, class Finish>
MLPKERN_INLINE void multiply_panel(Tile<A>* tiles, const RowTiles& cut, int64_t depth,
                                   const A* rows, int64_t row_step, const A* panel, int64_t vectors,
                                   const Finish& finish) {
  Ahead nothing;
  multiply_panel(tiles, cut, depth, rows, row_step, panel, vectors, nothing, finish);
}

// The most rows of a block, so that a sum over them is one chunk, and the number of their tiles.
constexpr int64_t kMaxBlockRows = kDepthChunk;
constexpr int64_t kBlockTiles = kMaxBlockRows / kTileRows + 1;

// ---- packing ----

// The step between packed rows of `columns` elements, an odd number of vectors: with a power of two
// the rows of a tile would fall into the same few cache sets.
template <class A>
MLPKERN_INLINE int64_t row_step_for(int64_t columns) {
  return (ceil_div(columns, kLanes<A>) | 1) * kLanes<A>;
}

// to[r * to_step + c] = x[r * row_stride + c] for c < width, zeros up to whole vectors: rows of a
// tile, or a column panel of a row-major matrix when to_step is the panel's step.
template <class T>
MLPKERN_INLINE void pack_rows(acc_t<T>* to, int64_t to_step, const T* x, int64_t row_stride,
                              int64_t rows, int64_t width) {
  constexpr int64_t L = kLanes<acc_t<T>>;
  for (int64_t r = 0; r < rows; ++r, x += row_stride, to += to_step)
    for (int64_t c = 0; c < width; c += L)
      store(to + c, width - c >= L ? load(x + c) : load_part(x + c, width - c));
}

// Column panel of the transpose: to[k * to_step + r] = x[r * row_stride + k] for r < rows, k <
// depth, with to_step = rows rounded up to whole vectors and zeros in the padding.
template <class T>
void pack_transposed(acc_t<T>* to, int64_t to_step, const T* x, int64_t row_stride, int64_t rows,
                     int64_t depth) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  for (int64_t k = 0; k < depth; k += L) {
    const int64_t terms = depth - k < L ? depth - k : L;
    for (int64_t r = 0; r < rows; r += L) {
      vec_t<A> block[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        const T* from = x + (r + i) * row_stride + k;
        block[i] = r + i >= rows ? vec_t<A>{} : terms == L ? load(from) : load_part(from, terms);
      }
      transpose<A>(block);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        if (i >= terms) break;
        store(to + (k + i) * to_step + r, block[i]);
      }
    }
  }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
