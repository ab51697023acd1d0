// linear_tanh on a CPU: output = tanh(input weight^T + bias) and its gradients (see kernels.h).
//
// forward: weight is packed once into column panels (lanes are hidden units); a task takes a block
// of rows, copies it to where it stays in L2, and adds bias and tanh while a tile is in L1.
//
// backward: a piece of the batch at a time, and in it a block of rows at a time. Once per block,
// dz = (1 - y^2) dy, summed for dbias on the way; then dinput = dz weight and
// dweight += dz^T input from the same block. Pieces depend on the shape alone and are added in
// order.
//
// Compile alone:
//   g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx512 -march=skylake-avx512 -c linear_tanh.cpp
#include "cpu/gemm.h"
#include "cpu/parallel.h"
#include "cpu/vmath.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

// Below this, 6 us of one AVX-512 core, a call stays serial: entering and leaving a parallel region
// costs 1.2 us and the threads must wake.
constexpr int64_t kSerialMultiplyAdds = 1 << 19;
constexpr int64_t kRowBlockBytes = 1 << 19;  // packed rows of one forward task: a quarter of L2
constexpr int64_t kBlockElements = 1 << 18;  // dz of one backward block
constexpr int64_t kStripRows = 32;
constexpr int64_t kMaxBlockRows = kDepthChunk;  // dweight sums a block in one chunk
constexpr int64_t kBlockTiles = kMaxBlockRows / kTileRows + 1;
constexpr int64_t kPartialElements = 1 << 23;  // all pieces' dweight together

int64_t acc_size(DType dtype) { return dtype == DType::f64 ? 8 : 4; }
int64_t lanes_of(DType dtype) { return kVectorBytes / acc_size(dtype); }
int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

// Scratch is handed out in order; every part begins on a cache line.
template <class A>
struct Scratch {
  char* next;
  A* take(int64_t elements) {
    A* part = reinterpret_cast<A*>(next);
    next += round_up(elements * sizeof(A), 64);
    return part;
  }
};

// ---------------------------------------------------------------------------------- forward

struct ForwardPlan {
  bool serial;
  int64_t block_rows, blocks;
  int64_t packed_weight, packed_rows;  // elements, the latter of one worker
};

ForwardPlan plan(const LinearTanhForward& a) {
  ForwardPlan p;
  const int64_t lanes = lanes_of(a.dtype), bytes = acc_size(a.dtype);
  const int64_t depth = a.K > 0 ? a.K : 1;
  const int64_t tiles = clamp(kRowBlockBytes / (bytes * depth * kTileRows), 2, 8);
  p.block_rows = tiles * kTileRows;
  p.blocks = ceil_div(a.N, p.block_rows);
  p.serial = a.N * a.K * a.H < kSerialMultiplyAdds;
  p.packed_weight = round_up(round_up(a.H, lanes) * depth, 16);
  const int64_t block = p.block_rows < a.N ? p.block_rows : a.N;
  p.packed_rows = block * (round_up(depth, lanes) + lanes);
  return p;
}

template <class T>
int64_t forward(const LinearTanhForward& a) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const ForwardPlan p = plan(a);
  const ColumnPanels<A> panels(a.H);
  const int64_t row_step = row_step_for<A>(a.K);
  const T* input = static_cast<const T*>(a.input);
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
  if (a.H * a.K < kSerialMultiplyAdds / 8)
    for (int64_t panel = 0; panel < panels.count; ++panel) pack_panel(panel);
  else
    parallel_for(panels.count, pack_panel);

  const auto run_block = [&](int64_t block, int64_t worker) {
    const int64_t first = block * p.block_rows;
    const int64_t left = a.N - first;
    const RowTiles cut(left < p.block_rows ? left : p.block_rows);
    A* rows = packed_rows + worker * p.packed_rows;
    pack_rows(rows, row_step, input + first * a.input_row_stride, a.input_row_stride, cut.rows,
              a.K);
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
                     panels.vectors(panel), finish);
    }
  };
  if (p.serial)
    for (int64_t block = 0; block < p.blocks; ++block) run_block(block, 0);
  else
    parallel_for_dynamic(p.blocks, run_block);
  return -1;
}

// ---------------------------------------------------------------------------------- backward

struct BackwardPlan {
  int64_t pieces, piece_rows, block_rows;
  int64_t dz_stride, partial_stride;                    // elements
  int64_t packed_weight, partial_weight, partial_bias;  // elements, the last two of one piece
  int64_t dz, packed_dz, packed_input;                  // elements of one worker
  int64_t per_worker() const { return dz + packed_dz + packed_input; }
};

BackwardPlan plan(const LinearTanhBackward& a) {
  BackwardPlan p;
  const int64_t lanes = lanes_of(a.dtype);
  const int64_t padded_h = round_up(a.H > 0 ? a.H : 1, lanes);
  const int64_t padded_k = round_up(a.K > 0 ? a.K : 1, lanes);
  const int64_t widest = padded_h > padded_k ? padded_h : padded_k;
  p.block_rows = clamp(kBlockElements / widest, 64, kMaxBlockRows);
  const int64_t most = clamp(kPartialElements / (padded_h * padded_k), 1, 32);
  const bool serial = a.N * a.K * a.H < kSerialMultiplyAdds;
  p.pieces = serial ? 1 : clamp(ceil_div(a.N, 256), 1, most);
  p.piece_rows = ceil_div(a.N, p.pieces);
  if (p.block_rows > p.piece_rows) p.block_rows = p.piece_rows;
  p.dz_stride = (padded_h / lanes | 1) * lanes;  // as row_step_for
  p.partial_stride = (padded_k / lanes | 1) * lanes;
  p.packed_weight = round_up(padded_k * a.H + 64, 16);
  p.partial_weight = round_up(p.partial_stride * a.H, 16);
  p.partial_bias = round_up(padded_h, 16);
  p.dz = round_up(p.block_rows * p.dz_stride + 2 * lanes, 16);
  // With several column panels of the input, each would walk over all of dz, whose rows lie in
  // pages of their own.
  p.packed_dz = padded_k > kTileVectors * lanes ? p.dz : 0;
  p.packed_input = p.block_rows * kTileVectors * lanes;  // one column panel
  return p;
}

// dz = (1 - y^2) dy for `rows` rows, padded with zeros; dbias += its column sums, which stay in a
// register for these rows: fewer passes over dbias, and two-level sums lose less.
template <class T>
MLPKERN_INLINE void form_dz(acc_t<T>* dz, int64_t dz_stride, acc_t<T>* dbias, const T* dy,
                            int64_t dy_stride, const T* y, int64_t y_stride, int64_t rows,
                            int64_t H) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  for (int64_t h = 0; h < H; h += L) {
    const bool whole = H - h >= L;
    vec_t<A> sum = {};
    for (int64_t n = 0; n < rows; ++n) {
      const T* out_n = y + n * y_stride + h;
      const T* up_n = dy + n * dy_stride + h;
      const vec_t<A> out = whole ? load(out_n) : load_part(out_n, H - h);
      const vec_t<A> up = whole ? load(up_n) : load_part(up_n, H - h);
      const vec_t<A> d = (A{1} - out * out) * up;
      store(dz + n * dz_stride + h, d);
      sum += d;
    }
    store(dbias + h, load(dbias + h) + sum);
  }
}

// Rows [row, row + rows) of a block of dz, by tiles of columns: element (n, h) of tile i goes to
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
      const A* from = dz + n * dz_stride + begin;
      for (int64_t r = 0; r < height; r += L) {
        if (n + 1 < block_rows || height - r >= L)
          store(tile_row + r, load(from + r));
        else
          store_part(tile_row + r, load(from + r), height - r);
      }
    }
  }
}

// dinput of a block: dz weight, tile by tile.
template <class T>
void multiply_by_weight(T* dinput, int64_t K, const acc_t<T>* dz, int64_t dz_stride, int64_t rows,
                        int64_t H, const acc_t<T>* packed_weight) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const ColumnPanels<A> panels(K);
  const RowTiles cut(rows);
  Tile<A> tiles[kBlockTiles];
  for (int64_t panel = 0; panel < panels.count; ++panel) {
    const int64_t width = panels.width(panel);
    const auto finish = [&](int64_t i, const Tile<A>& tile) {
      T* to = dinput + cut.begin(i) * K + panel * kTileColumns<A>;
      for (int64_t r = 0; r < cut.height(i); ++r, to += K)
        for (int64_t c = 0; c < width; c += L) {
          const vec_t<A> sum = load(tile.row(r) + c);
          if (width - c >= L)
            store(to + c, sum);
          else
            store_part(to + c, sum, width - c);
        }
    };
    multiply_panel(tiles, cut, H, dz, dz_stride, packed_weight + panels.offset(panel, H),
                   panels.vectors(panel), finish);
  }
}

// partial[h, k] (+)= sum_n dz[n, h] input[n, k] over a block. packed_dz is dz by column tiles, or
// null: then the columns are read where they are.
template <class T>
void add_outer_products(acc_t<T>* partial, int64_t partial_stride, bool first, const acc_t<T>* dz,
                        int64_t dz_stride, int64_t rows, int64_t H, const T* input,
                        int64_t input_stride, int64_t K, acc_t<T>* packed_input,
                        const acc_t<T>* packed_dz) {
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
               packed_input, step);
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

template <class T>
int64_t backward(const LinearTanhBackward& a) {
  using A = acc_t<T>;
  const BackwardPlan p = plan(a);
  const T* doutput = static_cast<const T*>(a.doutput);
  const T* input = static_cast<const T*>(a.input);
  const T* weight = static_cast<const T*>(a.weight);
  const T* output = static_cast<const T*>(a.output);
  T* dinput = static_cast<T*>(a.dinput);
  T* dweight = static_cast<T*>(a.dweight);
  T* dbias = static_cast<T*>(a.dbias);
  Scratch<A> scratch{static_cast<char*>(a.workspace)};
  A* packed_weight = scratch.take(p.packed_weight);
  A* partial_weight = scratch.take(p.partial_weight * p.pieces);
  A* partial_bias = scratch.take(p.partial_bias * p.pieces);
  A* worker_scratch = scratch.take(0);
  // A single piece of the accumulation type needs no partial sums: it writes the result.
  int64_t partial_stride = p.partial_stride;
  bool in_place = false;
  if constexpr (sizeof(T) == sizeof(A)) {
    in_place = p.pieces == 1 && dweight;
    if (in_place) partial_weight = dweight, partial_stride = a.K;
  }

  if (dinput) {
    const ColumnPanels<A> panels(a.K);
    const auto pack_panel = [&](int64_t panel) {
      pack_rows(packed_weight + panels.offset(panel, a.H), panels.step(panel),
                weight + panel * kTileColumns<A>, a.weight_row_stride, a.H, panels.width(panel));
    };
    if (a.H * a.K < kSerialMultiplyAdds / 8)
      for (int64_t panel = 0; panel < panels.count; ++panel) pack_panel(panel);
    else
      parallel_for(panels.count, pack_panel);
  }

  parallel_for_dynamic(p.pieces, [&](int64_t piece, int64_t worker) {
    A* dz = worker_scratch + worker * p.per_worker();
    A* packed_dz = dz + p.dz;
    A* packed_input = packed_dz + p.packed_dz;
    A* piece_weight = partial_weight + piece * p.partial_weight;
    A* piece_bias = partial_bias + piece * p.partial_bias;
    for (int64_t h = 0; h < p.partial_bias; ++h) piece_bias[h] = A{0};
    const int64_t begin = piece * p.piece_rows;
    const int64_t end = begin + p.piece_rows < a.N ? begin + p.piece_rows : a.N;
    if (begin >= end && dweight)
      for (int64_t k = 0; k < a.H * partial_stride; ++k) piece_weight[k] = A{0};
    for (int64_t n = begin; n < end; n += p.block_rows) {
      const int64_t rows = end - n < p.block_rows ? end - n : p.block_rows;
      for (int64_t row = 0; row < rows; row += kStripRows) {
        const int64_t strip = rows - row < kStripRows ? rows - row : kStripRows;
        form_dz(dz + row * p.dz_stride, p.dz_stride, piece_bias,
                doutput + (n + row) * a.doutput_row_stride, a.doutput_row_stride,
                output + (n + row) * a.output_row_stride, a.output_row_stride, strip, a.H);
        if (p.packed_dz && dweight)
          pack_by_column_tiles(packed_dz, RowTiles(a.H), rows, row, dz, p.dz_stride, strip);
      }
      if (dinput)
        multiply_by_weight(dinput + n * a.K, a.K, dz, p.dz_stride, rows, a.H, packed_weight);
      if (dweight)
        add_outer_products(piece_weight, partial_stride, n == begin, dz, p.dz_stride, rows, a.H,
                           input + n * a.input_row_stride, a.input_row_stride, a.K, packed_input,
                           p.packed_dz ? packed_dz : nullptr);
    }
  });

  if (dbias) add_pieces(dbias, partial_bias, p.pieces, p.partial_bias, a.H);
  if (!dweight || in_place) return -1;
  const auto finish_row = [&](int64_t h) {
    add_pieces(dweight + h * a.K, partial_weight + h * p.partial_stride, p.pieces, p.partial_weight,
               a.K);
  };
  if (a.H * a.K * p.pieces < kSerialMultiplyAdds / 8)
    for (int64_t h = 0; h < a.H; ++h) finish_row(h);
  else
    parallel_for(a.H, finish_row);
  return -1;
}

int64_t workers(int64_t tasks) { return tasks < kMaxWorkers ? tasks : kMaxWorkers; }

}  // namespace

size_t linear_tanh_forward_workspace(const LinearTanhForward& args) {
  const ForwardPlan p = plan(args);
  const int64_t elements = p.packed_weight + workers(p.blocks) * p.packed_rows;
  return elements * acc_size(args.dtype) + 256;
}

int64_t linear_tanh_forward(const LinearTanhForward& args) {
  if (args.N == 0 || args.H == 0) return -1;
  return for_dtype(args.dtype, [&](auto* element) {
    return forward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

size_t linear_tanh_backward_workspace(const LinearTanhBackward& args) {
  const BackwardPlan p = plan(args);
  const int64_t elements = p.packed_weight + p.pieces * (p.partial_weight + p.partial_bias) +
                           workers(p.pieces) * p.per_worker();
  return elements * acc_size(args.dtype) + 256;
}

int64_t linear_tanh_backward(const LinearTanhBackward& args) {
  return for_dtype(args.dtype, [&](auto* element) {
    return backward<std::remove_pointer_t<decltype(element)>>(args);
  });
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
