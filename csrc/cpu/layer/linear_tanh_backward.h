// The gradients of tanh(rows weight^T + bias) for rows from anywhere: a piece of the batch at a
// time, in it a block of rows at a time, in that a part of a block: dz = (1 - y^2) dy, summed for
// dbias on the way, and dinput = dz weight, while what the next part needs comes into L2; then
// dweight += dz^T input for the block. Pieces depend on the shape alone and are added in order.
#pragma once

#include "cpu/threads/scratch.h"
#include "cpu/vector/gemm.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kBlockElements = 1 << 18;  // dz of one block
constexpr int64_t kPartElements = 1 << 16;   // dz of one part
constexpr int64_t kMaxPartRows = 128;
constexpr int64_t kStripRows = 32;
constexpr int kStripVectors = 4;
constexpr int64_t kPartialElements = 1 << 23;  // all pieces' dweight together

struct LinearTanhBackwardPlan {
  int64_t pieces, piece_rows, block_rows, part_rows;
  int64_t dz_stride, partial_stride;                    // elements
  int64_t packed_weight, partial_weight, partial_bias;  // elements, the last two of one piece
  int64_t dz, packed_dz, packed_input;                  // elements of one worker
  int64_t per_worker() const { return dz + packed_dz + packed_input; }
};

LinearTanhBackwardPlan plan(const LinearTanhBackward& a) {
  LinearTanhBackwardPlan p;
  const int64_t lanes = lanes_of(a.dtype);
  const int64_t padded_h = round_up(a.H > 0 ? a.H : 1, lanes);
  const int64_t padded_k = round_up(a.K > 0 ? a.K : 1, lanes);
  const int64_t widest = padded_h > padded_k ? padded_h : padded_k;
  p.block_rows = clamp(kBlockElements / widest, 64, kMaxBlockRows);
  const int64_t most = clamp(kPartialElements / (padded_h * padded_k), 1, 32);
  const bool serial = a.N * a.K * a.H < kSerialMultiplyAdds;
  p.pieces = serial ? 1 : clamp(ceil_div(a.N, 256), 1, most);
  p.piece_rows = ceil_div(a.N, p.pieces);
  p.part_rows = clamp(kPartElements / padded_h, 32, kMaxPartRows);
  // With several column panels of the input, each walks over all of dz: packed, since its rows lie
  // in pages of their own. A single one takes a part as it is.
  const bool packs = padded_k > kTileVectors * lanes;
  if (!packs) p.block_rows = p.part_rows;
  if (p.block_rows > p.piece_rows) p.block_rows = p.piece_rows;
  if (p.part_rows > p.block_rows) p.part_rows = p.block_rows;
  p.dz_stride = (padded_h / lanes | 1) * lanes;  // as row_step_for
  p.partial_stride = (padded_k / lanes | 1) * lanes;
  p.packed_weight = round_up(padded_k * a.H + 64, 16);
  p.partial_weight = round_up(p.partial_stride * a.H, 16);
  p.partial_bias = round_up(padded_h, 16);
  p.dz = round_up(p.part_rows * p.dz_stride + 2 * lanes, 16);
  p.packed_dz = packs ? round_up(p.block_rows * padded_h + 2 * lanes, 16) : 0;
  p.packed_input = p.block_rows * kTileVectors * lanes;  // one column panel
  return p;
}

size_t workspace(const LinearTanhBackward& a) {
  const LinearTanhBackwardPlan p = plan(a);
  const int64_t elements = p.packed_weight + p.pieces * (p.partial_weight + p.partial_bias) +
                           workers(p.pieces) * p.per_worker();
  return elements * acc_size(a.dtype) + 256;
}

// dz = (1 - y^2) dy for Vectors vectors of columns, the last of `lanes` lanes, padded with zeros;
// dbias += its column sums, which stay in registers for these rows: fewer passes over dbias, and
// two-level sums lose less.
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
// to[begin(i) * block_rows + n * height(i) + h - begin(i)]. Whole vectors are stored where the next
// row of the tile repairs what lies past its own.
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

// partial[h, k] (+)= sum_n dz[n, h] input[n, k] over a block. packed_dz is dz by column tiles, or
// null: then the columns are read where they are.
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
      for (int64_t r = 0; r < height; ++r)  // far away, and needed when the product is done
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

// to[0, count) = the pieces' partial sums, added in order of the pieces.
template <class T>
void add_pieces(T* to, const acc_t<T>* partial, int64_t pieces, int64_t piece_stride,
                int64_t count) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  for (int64_t c = 0; c < count; c += L) {
    vec_t<A> sum = load(partial + c);
    for (int64_t piece = 1; piece < pieces; ++piece)
      sum += load(partial + c + piece * piece_stride);
    if (count - c >= L)
      store(to + c, sum);
    else
      store_part(to + c, sum, count - c);
  }
}

// Where a block of input rows lies; not good: leave the block out.
template <class X>
struct InputBlock {
  const X* rows;
  bool good = true;
};

// The gradients of a layer whose input rows come from anywhere, summed over one range of rows after
// another. args.dinput only says whether that gradient is wanted; args.N is the longest range.
template <class T>
class LinearTanhGradients {
  using A = acc_t<T>;

 public:
  explicit LinearTanhGradients(const LinearTanhBackward& args)
      : a_(args),
        p_(plan(args)),
        dweight_(static_cast<T*>(args.dweight)),
        partial_stride_(p_.partial_stride) {
    Scratch<A> scratch{static_cast<char*>(a_.workspace)};
    packed_weight_ = scratch.take(p_.packed_weight);
    partial_weight_ = scratch.take(p_.partial_weight * p_.pieces);
    partial_bias_ = scratch.take(p_.partial_bias * p_.pieces);
    worker_scratch_ = scratch.take(0);
    // A single piece of the accumulation type needs no partial sums: it writes the result.
    if constexpr (sizeof(T) == sizeof(A)) {
      in_place_ = p_.pieces == 1 && dweight_;
      if (in_place_) partial_weight_ = dweight_, partial_stride_ = a_.K;
    }
    if (a_.dinput) pack_weight();
  }

  // Adds rows [first, end). input_rows(n, rows, worker) is the InputBlock of rows n on,
  // input_stride apart; dinput_rows(n) is where their gradient goes, (rows, K) contiguous.
  template <class InputRows, class DinputRows>
  void add_rows(int64_t first, int64_t end, const InputRows& input_rows, int64_t input_stride,
                const DinputRows& dinput_rows) {
    const bool anew = !started_;
    started_ = true;
    parallel_for_dynamic(p_.pieces, [&](int64_t piece, int64_t worker) {
      A* piece_weight = partial_weight_ + piece * p_.partial_weight;
      A* piece_bias = partial_bias_ + piece * p_.partial_bias;
      const int64_t from = first + piece * p_.piece_rows;
      const int64_t to = from + p_.piece_rows < end ? from + p_.piece_rows : end;
      if (anew) clear(piece_bias, p_.partial_bias);
      bool fresh = anew && dweight_;  // whether piece_weight holds nothing yet
      for (int64_t n = from; n < to; n += p_.block_rows) {
        const int64_t rows = to - n < p_.block_rows ? to - n : p_.block_rows;
        const auto input = input_rows(n, rows, worker);
        if (!input.good) continue;
        A* dz = worker_scratch_ + worker * p_.per_worker();
        A* packed_dz = p_.packed_dz && dweight_ ? dz + p_.dz : nullptr;
        Ahead ahead;
        for (int64_t row = 0; row < rows; row += p_.part_rows) {
          const int64_t part = rows - row < p_.part_rows ? rows - row : p_.part_rows;
          form_part(dz, packed_dz, piece_bias, n + row, part, row, rows);
          ahead = what_follows(n + row + part, end, part, rows, dinput_rows);
          if (a_.dinput)
            multiply_by_weight(dinput_rows(n + row), a_.K, dz, p_.dz_stride, part, a_.H,
                               packed_weight_, ahead);
        }
        if (dweight_)
          add_outer_products(piece_weight, partial_stride_, fresh, dz, p_.dz_stride, rows, a_.H,
                             input.rows, input_stride, a_.K, dz + p_.dz + p_.packed_dz, packed_dz,
                             ahead);
        fresh = false;
      }
      if (fresh) clear(piece_weight, a_.H * partial_stride_);
    });
  }

  // Writes dweight and dbias once every row is added.
  void finish() {
    if (a_.dbias)
      add_pieces(static_cast<T*>(a_.dbias), partial_bias_, p_.pieces, p_.partial_bias, a_.H);
    if (!dweight_ || in_place_) return;
    parallel_for_work(a_.H, 8 * a_.H * a_.K * p_.pieces, [&](int64_t h) {
      add_pieces(dweight_ + h * a_.K, partial_weight_ + h * p_.partial_stride, p_.pieces,
                 p_.partial_weight, a_.K);
    });
  }

 private:
  static void clear(A* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = A{0};
  }

  void pack_weight() {
    const T* weight = static_cast<const T*>(a_.weight);
    const ColumnPanels<A> panels(a_.K);
    parallel_for_work(panels.count, 8 * a_.H * a_.K, [&](int64_t panel) {
      pack_rows(packed_weight_ + panels.offset(panel, a_.H), panels.step(panel),
                weight + panel * kTileColumns<A>, a_.weight_row_stride, a_.H, panels.width(panel));
    });
  }

  // dz of the `part` rows of the batch from n on, rows [row, row + part) of a block of `rows`.
  void form_part(A* dz, A* packed_dz, A* piece_bias, int64_t n, int64_t part, int64_t row,
                 int64_t rows) const {
    const T* doutput = static_cast<const T*>(a_.doutput) + n * a_.doutput_row_stride;
    const T* output = static_cast<const T*>(a_.output) + n * a_.output_row_stride;
    for (int64_t r = 0; r < part; r += kStripRows) {
      const int64_t strip = part - r < kStripRows ? part - r : kStripRows;
      A* dz_r = dz + r * p_.dz_stride;
      form_dz(dz_r, p_.dz_stride, piece_bias, doutput + r * a_.doutput_row_stride,
              a_.doutput_row_stride, output + r * a_.output_row_stride, a_.output_row_stride, strip,
              a_.H);
      if (packed_dz)
        pack_by_column_tiles(packed_dz, RowTiles(a_.H), rows, row + r, dz_r, p_.dz_stride, strip);
    }
  }

  // What the part from row n on needs, to come with the products of the part before it, `part` rows
  // of a block of `rows`.
  template <class DinputRows>
  Ahead what_follows(int64_t n, int64_t end, int64_t part, int64_t rows,
                     const DinputRows& dinput_rows) const {
    Ahead ahead;
    const int64_t next = end - n < p_.part_rows ? end - n : p_.part_rows;
    const int64_t panels = ColumnPanels<A>(a_.K).count;
    int64_t terms = 0;
    ahead.add_rows(static_cast<const T*>(a_.output), n, next, a_.H, a_.output_row_stride);
    ahead.add_rows(static_cast<const T*>(a_.doutput), n, next, a_.H, a_.doutput_row_stride);
    if (dweight_) {
      ahead.add_rows(static_cast<const T*>(a_.input), n, next, a_.K, a_.input_row_stride);
      if (!a_.dinput || part == rows) terms += RowTiles(a_.H).count * panels * rows;
    }
    if (a_.dinput) {
      ahead.add_rows(dinput_rows(n), 0, next, a_.K, a_.K);
      terms += RowTiles(part).count * panels * a_.H;
    }
    ahead.spread_over(terms);
    return ahead;
  }

  LinearTanhBackward a_;
  LinearTanhBackwardPlan p_;
  T* dweight_;
  int64_t partial_stride_;
  bool in_place_ = false, started_ = false;
  A *packed_weight_, *partial_weight_, *partial_bias_, *worker_scratch_;
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
