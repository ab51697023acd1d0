// The loops of the backward of linear_tanh over one block of rows: dz, dinput = dz weight,
// dweight += dz^T input, and the sum of the pieces.
#pragma once

#include "cpu/vector/gemm.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int kStripVectors = 4;

// dz = (1 - y^2) dy for Vectors vectors of columns, the last of `lanes` lanes, padded with zeros;
// dbias += its column sums, which stay in registers for these rows: fewer passes over dbias, and
// sums in two levels round less.
template <int Vectors, class T>
MLPKERN_INLINE void form_dz_columns(acc_t<T>* dz, int64_t dz_stride, acc_t<T>* dbias, const T* dy,
                                    int64_t dy_stride, const T* y, int64_t y_stride, int64_t rows,
                                    int64_t lanes) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const bool whole = Vectors > 1 || lanes == L;
  vec_t<A> sum[Vectors] = {};
  for (int64_t n = 0; n < rows; ++n, dz += dz_stride, dy += dy_stride, y += y_stride)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const vec_t<A> out = whole ? load(y + v * L) : load_part(y, lanes);
      const vec_t<A> up = whole ? load(dy + v * L) : load_part(dy, lanes);
      const vec_t<A> d = (A{1} - out * out) * up;
      store(dz + v * L, d);
      sum[v] += d;
    }
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) store(dbias + v * L, load(dbias + v * L) + sum[v]);
}

// The same for `rows` rows of H columns.
template <class T>
MLPKERN_INLINE void form_dz(acc_t<T>* dz, int64_t dz_stride, acc_t<T>* dbias, const T* dy,
                            int64_t dy_stride, const T* y, int64_t y_stride, int64_t rows,
                            int64_t H) {
  constexpr int64_t L = kLanes<acc_t<T>>;
  int64_t h = 0;
  for (; h + kStripVectors * L <= H; h += kStripVectors * L)
    form_dz_columns<kStripVectors>(dz + h, dz_stride, dbias + h, dy + h, dy_stride, y + h, y_stride,
                                   rows, L);
  for (; h < H; h += L)
    form_dz_columns<1>(dz + h, dz_stride, dbias + h, dy + h, dy_stride, y + h, y_stride, rows,
                       H - h < L ? H - h : L);
}

// dz, rows [row, row + rows) of a block, by tiles of columns: element (n, h) of tile i goes to
// to[begin(i) * block_rows + n * height(i) + h - begin(i)]. Stores whole vectors where the next row
// of the tile overwrites the excess.
template <class A>
MLPKERN_INLINE void pack_by_column_tiles(A* to, const RowTiles& cut, int64_t block_rows,
                                         int64_t row, const A* dz, int64_t dz_stride,
                                         int64_t rows) {
  constexpr int64_t L = kLanes<A>;
  for (int64_t i = 0; i < cut.count; ++i) {
    const int64_t begin = cut.begin(i), height = cut.height(i);
    for (int64_t n = row; n < row + rows; ++n) {
      A* tile_row = to + begin * block_rows + n * height;
      const A* from = dz + (n - row) * dz_stride + begin;
      for (int64_t r = 0; r < height; r += L) {
        if (n + 1 < block_rows || height - r >= L)
          store(tile_row + r, load(from + r));
        else
          store_part(tile_row + r, load(from + r), height - r);
      }
    }
  }
}

// to (rows, K) = dz weight, tile by tile.
template <class T>
void multiply_by_weight(T* to, int64_t K, const acc_t<T>* dz, int64_t dz_stride, int64_t rows,
                        int64_t H, const acc_t<T>* packed_weight, Ahead& ahead) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const ColumnPanels<A> panels(K);
  const RowTiles cut(rows);
  Tile<A> tiles[kBlockTiles];
  for (int64_t panel = 0; panel < panels.count; ++panel) {
    const int64_t width = panels.width(panel);
    const auto finish = [&](int64_t i, const Tile<A>& tile) {
      T* row = to + cut.begin(i) * K + panel * kTileColumns<A>;
      for (int64_t r = 0; r < cut.height(i); ++r, row += K)
        for (int64_t c = 0; c < width; c += L) {
          const vec_t<A> sum = load(tile.row(r) + c);
          if (width - c >= L)
            store(row + c, sum);
          else
            store_part(row + c, sum, width - c);
        }
    };
    multiply_panel(tiles, cut, H, dz, dz_stride, packed_weight + panels.offset(panel, H),
                   panels.vectors(panel), ahead, finish);
  }
}

// partial[h, k] (+)= sum_n dz[n, h] input[n, k] over a block. packed_dz is dz by column tiles; if
// null, the columns are read from dz.
template <class T>
void add_outer_products(acc_t<T>* partial, int64_t partial_stride, bool first, const acc_t<T>* dz,
                        int64_t dz_stride, int64_t rows, int64_t H, const T* input,
                        int64_t input_stride, int64_t K, acc_t<T>* packed_input,
                        const acc_t<T>* packed_dz, Ahead& ahead) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const ColumnPanels<A> panels(K);
  const RowTiles tiles(H);
  Tile<A> tile;
  for (int64_t panel = 0; panel < panels.count; ++panel) {
    const int64_t column = panel * kTileColumns<A>, step = panels.step(panel);
    const int64_t width = panels.width(panel);
    pack_rows(packed_input, step, input + column, input_stride, rows, width);
    for (int64_t i = 0; i < tiles.count; ++i) {
      const int64_t height = tiles.height(i), h = tiles.begin(i);
      for (int64_t r = 0; r < height; ++r)  // far in memory, needed after the product
        for (int64_t c = 0; c < width; c += 64 / sizeof(A))
          __builtin_prefetch(partial + (h + r) * partial_stride + column + c, 1);
      multiply(tile, true, height, panels.vectors(panel), rows,
               packed_dz ? packed_dz + h * rows : dz + h, 1, packed_dz ? height : dz_stride,
               packed_input, step, ahead);
      for (int64_t r = 0; r < height; ++r) {
        A* to = partial + (h + r) * partial_stride + column;
        for (int64_t c = 0; c < width; c += L) {
          const vec_t<A> sum = load(tile.row(r) + c);
          if (width - c >= L)
            store(to + c, first ? sum : load(to + c) + sum);
          else
            store_part(to + c, first ? sum : load_part(to + c, width - c) + sum, width - c);
        }
      }
    }
  }
}

// to[0, count) = the pieces' partial sums, added in order within blocks of kBlockPieces, then block
// by block: of V pieces, the rounding errors of a sum grow with V / kBlockPieces.
constexpr int64_t kBlockPieces = 64;

template <class T>
void add_pieces(T* to, const acc_t<T>* partial, int64_t pieces, int64_t piece_stride,
                int64_t count) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  for (int64_t c = 0; c < count; c += L) {
    vec_t<A> sum{};
    for (int64_t begin = 0; begin < pieces; begin += kBlockPieces) {
      const int64_t end = pieces - begin < kBlockPieces ? pieces : begin + kBlockPieces;
      vec_t<A> block = load(partial + c + begin * piece_stride);
      for (int64_t piece = begin + 1; piece < end; ++piece)
        block += load(partial + c + piece * piece_stride);
      sum = begin == 0 ? block : sum + block;
    }
    if (count - c >= L)
      store(to + c, sum);
    else
      store_part(to + c, sum, count - c);
  }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
