// Register-tiled matrix product for linear_tanh: tile = sum_k a(k, row) * b(k, column).
//
// Rows of a tile are broadcast, columns are vector lanes. Both operands are read in the order of k:
//   a: element (k, row) at a[k * a_step + row]           ("row panel" when a_step == rows of the
//   tile) b: element (k, column) at b[k * b_step + column]     ("column panel", padded to whole
//   vectors)
// A full AVX-512 tile is 14 rows by 2 vectors: 28 accumulators, 2 column vectors, and per k 16
// loads for 28 fused multiply-adds, so the FMA ports stay the limit. Sums run in chunks of
// kDepthChunk terms whose results are added: as accurate as a blocked library product, and
// independent of how rows are cut into tiles.
#pragma once

#include <type_traits>

#include "cpu/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 14;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#elif defined(__aarch64__)
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 2;
constexpr int64_t kDepthChunk = 512;

template <class A>
constexpr int64_t kTileColumns = kTileVectors * kLanes<A>;

// The tile in memory: row r, column c at values[r * kTileColumns + c].
template <class A>
struct alignas(64) Tile {
  A values[kTileRows * kTileColumns<A>];
  MLPKERN_INLINE const A* row(int64_t r) const { return values + r * kTileColumns<A>; }
  MLPKERN_INLINE A* row(int64_t r) { return values + r * kTileColumns<A>; }
};

template <class A, int Rows, int Vectors>
void multiply_fixed(Tile<A>& tile, int64_t depth, const A* a, int64_t a_step, const A* b,
                    int64_t b_step) {
  for (int64_t done = 0; done == 0 || done < depth; done += kDepthChunk) {
    vec_t<A> sum[Rows][Vectors];
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) sum[r][v] = vec_t<A>{};
    const int64_t chunk = depth - done < kDepthChunk ? depth - done : kDepthChunk;
    for (int64_t k = 0; k < chunk; ++k, a += a_step, b += b_step) {
      vec_t<A> column[Vectors];
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) column[v] = load(b + v * kLanes<A>);
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        const vec_t<A> x = splat(a[r]);
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v) sum[r][v] += x * column[v];
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) {
        A* to = tile.row(r) + v * kLanes<A>;
        store(to, done == 0 ? sum[r][v] : load(to) + sum[r][v]);
      }
  }
}

template <class A>
using Multiply = void (*)(Tile<A>&, int64_t, const A*, int64_t, const A*, int64_t);

template <class A, int Rows>
Multiply<A> pick_multiply(int64_t rows, int64_t vectors) {
  if constexpr (Rows > 1) {
    if (rows < Rows) return pick_multiply<A, Rows - 1>(rows, vectors);
  }
  return vectors == 1 ? multiply_fixed<A, Rows, 1> : multiply_fixed<A, Rows, kTileVectors>;
}

// tile[rows, vectors] = a b, depth terms; columns past `vectors` whole vectors are unspecified.
template <class A>
void multiply(Tile<A>& tile, int64_t rows, int64_t vectors, int64_t depth, const A* a,
              int64_t a_step, const A* b, int64_t b_step) {
  pick_multiply<A, kTileRows>(rows, vectors)(tile, depth, a, a_step, b, b_step);
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

// ---- packing ----

// Column panel of rows [0, depth) of a row-major matrix: `width` columns from x, zero padded.
template <class T>
MLPKERN_INLINE void pack_columns(acc_t<T>* to, const T* x, int64_t row_stride, int64_t depth,
                                 int64_t width) {
  constexpr int64_t L = kLanes<acc_t<T>>;
  for (int64_t k = 0; k < depth; ++k, x += row_stride)
    for (int64_t c = 0; c < width; c += L, to += L)
      store(to, width - c >= L ? load(x + c) : load_part(x + c, width - c));
}

// One exchange step of the transpose of an L x L block: lanes l with bit Step set swap between
// rows.
template <class V>
MLPKERN_INLINE void exchange(V& low, V& high, int step) {
  using Ints = ints_t<std::remove_cv_t<std::remove_reference_t<decltype(low[0])>>>;
  constexpr int lanes = sizeof(V) / sizeof(low[0]);
  Ints from_low, from_high;
  for (int l = 0; l < lanes; ++l) {
    from_low[l] = l & step ? lanes + l - step : l;
    from_high[l] = l & step ? lanes + l : l + step;
  }
  const V a = low, b = high;
#if defined(__clang__)
  for (int l = 0; l < lanes; ++l) {
    low[l] = from_low[l] < lanes ? a[from_low[l]] : b[from_low[l] - lanes];
    high[l] = from_high[l] < lanes ? a[from_high[l]] : b[from_high[l] - lanes];
  }
#else
  low = __builtin_shuffle(a, b, from_low);
  high = __builtin_shuffle(a, b, from_high);
#endif
}

template <class A>
MLPKERN_INLINE void transpose(vec_t<A> (&block)[kLanes<A>]) {
#pragma GCC unroll 8
  for (int step = 1; step < kLanes<A>; step *= 2)
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<A>; ++i)
      if (!(i & step)) exchange(block[i], block[i + step], step);
}

// Transposed copy: to[k * to_step + r] = x[r * row_stride + k] for r < rows, k < depth. Where
// to_step is below one vector, stores overlap and the next one repairs them: `to` needs one vector
// of slack. Lanes [rows, to_step) are zero when to_step is whole vectors.
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
      const bool whole = to_step - r >= L || to_step < L;
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        if (i >= terms) break;
        A* at = to + (k + i) * to_step + r;
        if (whole)
          store(at, block[i]);
        else
          store_part(at, block[i], to_step - r);
      }
    }
  }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
