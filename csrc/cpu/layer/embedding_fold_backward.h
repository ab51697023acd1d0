// Folded backward of embedding_linear_tanh: dF[v, t] = sum of dz over the rows n with id v at
// position t. For each block of dz the rows are sorted by id, once per position, and each run of
// rows is summed in registers. Every piece of the batch has its own tables, which are added in
// order. Then dembedding = sum_t dF_t weight_t, dweight_t = dF_t^T embedding, dbias = sum_v dF[v,
// 0].
#pragma once

#include <cstring>

#include "cpu/layer/embedding_fold.h"
#include "cpu/vector/ids.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int32_t kRunRows = 128;  // summed in one chain: longer chains lose digits

struct FoldBackwardPlan {
  int64_t positions;  // positions with tables: all, or only the first for dbias alone
  int64_t row;        // elements of a table row: those of its positions
  int64_t step, tables, pieces, piece_rows, block_rows;  // tables: elements of one piece
  int64_t dz, packed_embedding, packed_weight;           // elements, dz of a worker
  int64_t used, ids, order;                              // bytes: in all, of a worker, of a worker

  template <class A>
  int64_t per_worker() const {
    return ids + order + round_up(dz * static_cast<int64_t>(sizeof(A)), 64);
  }
};

FoldBackwardPlan plan_fold(const EmbeddingLinearTanhBackward& a) {
  FoldBackwardPlan p;
  const int64_t lanes = lanes_of(a.dtype);
  p.step = row_step_for(a.dtype, a.H);
  p.positions = a.dembedding || a.dweight ? a.T : 1;
  p.row = p.positions * p.step;
  p.tables = a.V * p.row;
  const bool serial = a.N * (a.T + 4) * a.H < kSerialMultiplyAdds;
  // So that clearing and adding the tables is less work than summing.
  const int64_t least_rows = 4 * a.V > 256 ? 4 * a.V : 256;
  const int64_t most = clamp(kPartialElements / p.tables, 1, 32);
  p.pieces = serial ? 1 : clamp(a.N / least_rows, 1, most);
  p.piece_rows = ceil_div(a.N, p.pieces);
  p.block_rows = clamp(kFoldBytes / 2 / (p.step * acc_size(a.dtype)), 64, 1024);
  if (p.block_rows > p.piece_rows) p.block_rows = p.piece_rows;
  p.dz = p.block_rows * p.step;
  const int64_t panel_step = round_up(a.D, lanes);
  p.packed_embedding = a.dweight ? a.T * a.V * panel_step : 0;
  p.packed_weight = a.dembedding ? a.T * p.step * panel_step : 0;
  p.used = round_up(a.V * p.positions, 64);
  p.ids = round_up(p.block_rows * a.T * sizeof(int64_t), 64);
  p.order = round_up((p.block_rows + a.V + 1) * sizeof(int32_t), 64);
  return p;
}

size_t fold_workspace(const EmbeddingLinearTanhBackward& a) {
  const FoldBackwardPlan p = plan_fold(a);
  const int64_t per_worker = a.dtype == DType::f64 ? p.per_worker<double>() : p.per_worker<float>();
  const int64_t elements = p.pieces * p.tables + p.packed_embedding + p.packed_weight;
  return elements * acc_size(a.dtype) + p.used + workers(p.pieces) * per_worker + 1024;
}

// to[0, Vectors vectors) += the rows of dz listed in [row, end).
template <class A, int Vectors>
MLPKERN_INLINE void add_run(A* to, const A* dz, int64_t dz_stride, const int32_t* row,
                            const int32_t* end) {
  constexpr int64_t L = kLanes<A>;
  vec_t<A> sum[Vectors] = {};
  for (; row != end; ++row) {
    const A* from = dz + *row * dz_stride;
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sum[v] += load(from + v * L);
  }
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) store(to + v * L, load(to + v * L) + sum[v]);
}

// dz = (1 - y^2) dy for rows [first, first + rows), step apart and padded with zeros.
template <class T>
MLPKERN_INLINE void form_rows(acc_t<T>* dz, const EmbeddingLinearTanhBackward& a, int64_t step,
                              int64_t first, int64_t rows) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const T* dy = static_cast<const T*>(a.doutput) + first * a.doutput_row_stride;
  const T* y = static_cast<const T*>(a.output) + first * a.output_row_stride;
  for (int64_t n = 0; n < rows; ++n) {
    int64_t h = 0;
    for (; h + L <= a.H; h += L) {
      const vec_t<A> out = load(y + h);
      store(dz + h, (A{1} - out * out) * load(dy + h));
    }
    if (h < a.H) {
      const vec_t<A> out = load_part(y + h, a.H - h);
      store(dz + h, (A{1} - out * out) * load_part(dy + h, a.H - h));
    }
    dz += step, dy += a.doutput_row_stride, y += a.output_row_stride;
  }
}

// tables[v, t] += the rows of dz whose id at position t is v. order and ends are scratch.
template <class A>
void add_by_id(A* tables, const EmbeddingLinearTanhBackward& a, const FoldBackwardPlan& p,
               const int64_t* ids, int64_t t, const A* dz, int64_t rows, int32_t* order,
               int32_t* ends, uint8_t* used) {
  std::memset(ends, 0, (a.V + 1) * sizeof *ends);
  for (int64_t n = 0; n < rows; ++n) ++ends[ids[n * a.T + t] + 1];
  for (int64_t v = 0; v < a.V; ++v) ends[v + 1] += ends[v];  // ends[v]: where the rows of v begin
  for (int64_t n = 0; n < rows; ++n) order[ends[ids[n * a.T + t]]++] = static_cast<int32_t>(n);
  const int64_t padded = round_up(a.H, kLanes<A>);
  int32_t begin = 0;  // now ends[v] is their end
  for (int64_t v = 0; v < a.V; begin = ends[v], ++v) {
    const int32_t end = ends[v];
    if (begin == end) continue;
    __atomic_store_n(used + v * p.positions + t, 1, __ATOMIC_RELAXED);
    A* to = tables + v * p.row + t * p.step;
    for (int32_t from = begin; from < end; from += kRunRows) {
      const int32_t past = end - from < kRunRows ? end : from + kRunRows;
      for_column_groups<A>(padded, [&](auto vectors, int64_t column) {
        add_run<A, decltype(vectors)::value>(to + column, dz + column, p.step, order + from,
                                             order + past);
      });
    }
  }
}

// dbias = sum_v dF[v, 0], since every row of the batch has one id at the first position.
template <class T>
void dbias_from_tables(const EmbeddingLinearTanhBackward& a, const FoldBackwardPlan& p,
                       const acc_t<T>* tables) {
  add_pieces(static_cast<T*>(a.dbias), tables, a.V, p.row, a.H);
}

// dembedding[v, d] = sum_{t, h} dF[v, t, h] weight[h, t*D + d]; zero for rows without an id in the
// batch, even where weights are not finite.
template <class T>
void dembedding_from_tables(const EmbeddingLinearTanhBackward& a, const FoldBackwardPlan& p,
                            const acc_t<T>* tables, const uint8_t* used, acc_t<T>* packed) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const ColumnPanels<A> panels(a.D);
  const int64_t depth = a.T * p.step;
  const T* weight = static_cast<const T*>(a.weight);
  T* dembedding = static_cast<T*>(a.dembedding);
  parallel_for_work(panels.count * a.T, 8 * a.H * a.T * a.D, [&](int64_t task) {
    const int64_t panel = task / a.T, t = task - panel * a.T, width = panels.step(panel);
    A* to = packed + panels.offset(panel, depth) + t * p.step * width;
    pack_rows(to, width, weight + t * a.D + panel * kTileColumns<A>, a.weight_row_stride, a.H,
              panels.width(panel));
    std::memset(to + a.H * width, 0, (p.step - a.H) * width * sizeof(A));
  });
  parallel_for_work(ceil_div(a.V, kTileRows), a.V * depth * a.D, [&](int64_t task) {
    const int64_t first = task * kTileRows;
    const int64_t rows = a.V - first < kTileRows ? a.V - first : kTileRows;
    Tile<A> tile[1];
    for (int64_t panel = 0; panel < panels.count; ++panel)
      multiply_panel(tile, RowTiles(rows), depth, tables + first * depth, depth,
                     packed + panels.offset(panel, depth), panels.vectors(panel),
                     [&](int64_t, const Tile<A>& done) {
                       const int64_t width = panels.width(panel);
                       for (int64_t r = 0; r < rows; ++r) {
                         const uint8_t* named = used + (first + r) * a.T;
                         const bool any = std::memchr(named, 1, a.T) != nullptr;
                         T* to = dembedding + (first + r) * a.D + panel * kTileColumns<A>;
                         for (int64_t c = 0; c < width; c += L)
                           store_part(to + c, any ? load(done.row(r) + c) : vec_t<A>{},
                                      width - c < L ? width - c : L);
                       }
                     });
  });
}

// dweight[h, t*D + d] = sum_v dF[v, t, h] embedding[v, d], over the rows v that are used at t.
template <class T>
void dweight_from_tables(const EmbeddingLinearTanhBackward& a, const FoldBackwardPlan& p,
                         const acc_t<T>* tables, const uint8_t* used, acc_t<T>* packed) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const ColumnPanels<A> panels(a.D);
  const RowTiles cut(a.H);
  const T* embedding = static_cast<const T*>(a.embedding);
  T* dweight = static_cast<T*>(a.dweight);
  parallel_for_work(a.T, a.V * a.T * a.D * a.H, [&](int64_t t) {
    A* own = packed + t * a.V * panels.padded();
    for (int64_t panel = 0; panel < panels.count; ++panel) {
      A* rows = own + panels.offset(panel, a.V);
      const int64_t step = panels.step(panel), width = panels.width(panel);
      pack_rows(rows, step, embedding + panel * kTileColumns<A>, a.embedding_row_stride, a.V,
                width);
      for (int64_t v = 0; v < a.V; ++v)
        if (!used[v * a.T + t]) std::memset(rows + v * step, 0, step * sizeof(A));
      for (int64_t i = 0; i < cut.count; ++i) {
        const int64_t h = cut.begin(i), height = cut.height(i);
        Tile<A> tile;
        for (int64_t v = 0; v < a.V; v += kDepthChunk)
          multiply(tile, v == 0, height, panels.vectors(panel),
                   a.V - v < kDepthChunk ? a.V - v : kDepthChunk,
                   tables + (v * a.T + t) * p.step + h, 1, a.T * p.step, rows + v * step, step);
        for (int64_t r = 0; r < height; ++r) {
          T* to = dweight + (h + r) * a.T * a.D + t * a.D + panel * kTileColumns<A>;
          for (int64_t c = 0; c < width; c += L)
            store_part(to + c, load(tile.row(r) + c), width - c < L ? width - c : L);
        }
      }
    }
  });
}

template <class T>
int64_t backward_folded(const EmbeddingLinearTanhBackward& a) {
  using A = acc_t<T>;
  const FoldBackwardPlan p = plan_fold(a);
  Scratch<A> scratch{static_cast<char*>(a.workspace)};
  A* tables = scratch.take(p.pieces * p.tables);
  A* packed_embedding = scratch.take(p.packed_embedding);
  A* packed_weight = scratch.take(p.packed_weight);
  uint8_t* used = reinterpret_cast<uint8_t*>(scratch.take(0));
  char* worker_scratch = reinterpret_cast<char*>(used) + p.used;
  std::memset(used, 0, p.used);

  int64_t bad = -1;
  parallel_for_dynamic(p.pieces, [&](int64_t piece, int64_t worker) {
    char* own = worker_scratch + worker * p.per_worker<A>();
    int64_t* ids = reinterpret_cast<int64_t*>(own);
    int32_t* order = reinterpret_cast<int32_t*>(own + p.ids);
    A* dz = reinterpret_cast<A*>(own + p.ids + p.order);
    A* piece_tables = tables + piece * p.tables;
    std::memset(piece_tables, 0, p.tables * sizeof(A));
    const int64_t begin = piece * p.piece_rows;
    const int64_t end = begin + p.piece_rows < a.N ? begin + p.piece_rows : a.N;
    for (int64_t first = begin; first < end; first += p.block_rows) {
      const int64_t rows = end - first < p.block_rows ? end - first : p.block_rows;
      const int64_t found = read_ids(ids, a, first, rows);
      if (found >= 0) return report_first(&bad, found);
      form_rows<T>(dz, a, p.step, first, rows);
      for (int64_t t = 0; t < p.positions; ++t)
        add_by_id(piece_tables, a, p, ids, t, dz, rows, order, order + p.block_rows, used);
    }
  });
  if (bad >= 0) return bad;
  if (p.pieces > 1)
    parallel_for_work(a.V, 8 * p.tables * p.pieces, [&](int64_t v) {
      A* row = tables + v * p.row;
      add_pieces(row, row, p.pieces, p.tables, p.row);
    });
  if (a.dbias) dbias_from_tables<T>(a, p, tables);
  if (a.dembedding) dembedding_from_tables<T>(a, p, tables, used, packed_weight);
  if (a.dweight) dweight_from_tables<T>(a, p, tables, used, packed_embedding);
  return -1;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
