// Folded forward of embedding_linear_tanh: tables F[v, t] = embedding[v] weight_t^T with weight_t
// the D columns of position t and the bias in those of t = 0; then output[n] = tanh(sum_t
// F[input[n, t], t]), a block of rows a task.
#pragma once

#include "cpu/layer/embedding_fold.h"
#include "cpu/vector/ids.h"
#include "cpu/vector/vmath.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

struct FoldForwardPlan {
  int64_t step, tables, packed_embedding, packed_weight;  // elements
  int64_t block_rows, blocks, ids;                        // ids of one worker, int64
};

FoldForwardPlan plan_fold(const EmbeddingLinearTanhForward& a) {
  FoldForwardPlan p;
  const int64_t lanes = lanes_of(a.dtype);
  p.step = row_step_for(a.dtype, a.H);
  p.tables = a.V * a.T * p.step;
  p.packed_embedding = a.V * row_step_for(a.dtype, a.D);
  p.packed_weight = a.T * round_up(a.H, lanes) * a.D;
  const bool serial = a.N * (a.T + 8) * a.H < kSerialMultiplyAdds;
  p.block_rows = serial ? a.N : clamp((1 << 16) / a.H, 16, a.N);
  p.blocks = ceil_div(a.N, p.block_rows);
  p.ids = p.block_rows * a.T;
  return p;
}

size_t fold_workspace(const EmbeddingLinearTanhForward& a) {
  const FoldForwardPlan p = plan_fold(a);
  return (p.tables + p.packed_embedding + p.packed_weight) * acc_size(a.dtype) +
         workers(p.blocks) * p.ids * sizeof(int64_t) + 512;
}

template <class T>
void make_tables(acc_t<T>* tables, const EmbeddingLinearTanhForward& a, const FoldForwardPlan& p,
                 acc_t<T>* packed_embedding, acc_t<T>* packed_weight) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  const ColumnPanels<A> panels(a.H);
  const int64_t embedding_step = row_step_for<A>(a.D);
  pack_rows(packed_embedding, embedding_step, static_cast<const T*>(a.embedding),
            a.embedding_row_stride, a.V, a.D);
  parallel_for_work(a.T * panels.count, a.V * a.T * a.D * a.H, [&](int64_t task) {
    const int64_t t = task / panels.count, panel = task - t * panels.count;
    const int64_t column = panel * kTileColumns<A>, width = panels.width(panel);
    A* packed = packed_weight + t * panels.padded() * a.D + panels.offset(panel, a.D);
    pack_transposed(packed, panels.step(panel), weight + column * a.weight_row_stride + t * a.D,
                    a.weight_row_stride, width, a.D);
    vec_t<A> offset[kTileVectors] = {};
    if (bias && t == 0)
      for (int64_t c = 0; c < width; c += L)
        offset[c / L] = load_part(bias + column + c, width - c < L ? width - c : L);
    for (int64_t first = 0; first < a.V; first += kMaxBlockRows) {
      const RowTiles cut(a.V - first < kMaxBlockRows ? a.V - first : kMaxBlockRows);
      Tile<A> tiles[kBlockTiles];
      multiply_panel(tiles, cut, a.D, packed_embedding + first * embedding_step, embedding_step,
                     packed, panels.vectors(panel), [&](int64_t i, const Tile<A>& tile) {
                       A* to = tables + ((first + cut.begin(i)) * a.T + t) * p.step + column;
                       for (int64_t r = 0; r < cut.height(i); ++r, to += a.T * p.step)
                         for (int64_t c = 0; c < width; c += L)
                           store(to + c, load(tile.row(r) + c) + offset[c / L]);
                     });
    }
  });
}

// to[0, columns) = tanh of the sum of the T rows of tables, Vectors vectors of it.
template <class T, int Vectors>
MLPKERN_INLINE void finish_columns(T* to, const acc_t<T>* tables, const int64_t* rows,
                                   int64_t row_count, int64_t columns) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  vec_t<A> sum[Vectors];
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) sum[v] = load(tables + rows[0] + v * L);
  for (int64_t t = 1; t < row_count; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) sum[v] += load(tables + rows[t] + v * L);
#pragma GCC unroll 4
  for (int v = 0; v < Vectors; ++v) {
    const vec_t<A> y = tanh(sum[v]);
    if (columns - v * L >= L)
      store(to + v * L, y);
    else
      store_part(to + v * L, y, columns - v * L);
  }
}

template <class T>
int64_t forward_folded(const EmbeddingLinearTanhForward& a) {
  using A = acc_t<T>;
  constexpr int64_t L = kLanes<A>;
  const FoldForwardPlan p = plan_fold(a);
  Scratch<A> scratch{static_cast<char*>(a.workspace)};
  A* tables = scratch.take(p.tables);
  A* packed_embedding = scratch.take(p.packed_embedding);
  A* packed_weight = scratch.take(p.packed_weight);
  int64_t* ids = reinterpret_cast<int64_t*>(scratch.take(0));
  make_tables<T>(tables, a, p, packed_embedding, packed_weight);

  T* output = static_cast<T*>(a.output);
  const int64_t padded = round_up(a.H, L);
  int64_t bad = -1;
  const auto run_block = [&](int64_t block, int64_t worker) {
    const int64_t first = block * p.block_rows;
    const int64_t rows = a.N - first < p.block_rows ? a.N - first : p.block_rows;
    int64_t* row_ids = ids + worker * p.ids;
    const int64_t found = read_ids(row_ids, a, first, rows);
    if (found >= 0) return report_first(&bad, found);
    for (int64_t n = 0; n < rows; ++n, row_ids += a.T) {
      T* to = output + (first + n) * a.H;
      for (int64_t t = 0; t < a.T; ++t) row_ids[t] = (row_ids[t] * a.T + t) * p.step;  // in tables
      for_column_groups<A, 4>(padded, [&](auto vectors, int64_t column) {
        constexpr int kVectors = decltype(vectors)::value;
        finish_columns<T, kVectors>(to + column, tables + column, row_ids, a.T, a.H - column);
      });
    }
  };
  if (p.blocks == 1)
    run_block(0, 0);
  else
    parallel_for_dynamic(p.blocks, run_block);
  return bad;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
