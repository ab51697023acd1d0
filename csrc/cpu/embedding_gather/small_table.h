// The backward of embedding_gather for a small table: every piece of the batch sums into a table of
// its own, rows padded to whole vectors, and the tables are added in order.
#pragma once

#include <cstring>

#include "cpu/embedding_gather/gradient_rows.h"
#include "cpu/embedding_gather/positions.h"
#include "cpu/threads/parallel.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kSmallTableBytes = 1 << 16;

// to[0, padded) += from[0, padded) in whole vectors; the sums in the padding are never used.
template <class T>
MLPKERN_INLINE void add_padded_row(acc_t<T>* to, const T* from, int64_t padded) {
  constexpr int64_t L = kLanes<acc_t<T>>;
  for (int64_t d = 0; d < padded; d += L) store(to + d, load(to + d) + load(from + d));
}

struct SmallTablePlan {
  int64_t padded, pieces;
};

SmallTablePlan plan_small_table(const EmbeddingGatherBackward& a) {
  const int64_t lanes = a.dtype == DType::f64 ? kLanes<double> : kLanes<float>;
  const int64_t count = a.N * a.T, serial = count * a.D * element_size(a.dtype) < kSerialBytes;
  int64_t pieces = serial ? 1 : ceil_div(count, kPieceIds);
  // More pieces would spend more time on adding the tables than on summing into them.
  const int64_t worth = count / (4 * (a.V > 0 ? a.V : 1));
  pieces = pieces > worth ? worth : pieces;
  pieces = pieces > 64 ? 64 : pieces;
  return {round_up(a.D, lanes), pieces < 1 ? 1 : pieces};
}

bool table_is_small(const EmbeddingGatherBackward& a) {
  return a.V * a.D * element_size(a.dtype) <= kSmallTableBytes;
}

template <class T, class Index>
int64_t sum_into_small_tables(const EmbeddingGatherBackward& a) {
  using A = acc_t<T>;
  const auto [padded, pieces] = plan_small_table(a);
  const int64_t count = a.N * a.T, table_size = a.V * padded;
  const GradientRows<T> rows(a);
  A* tables = static_cast<A*>(a.workspace);
  int64_t bad = -1;
  parallel_for(pieces, [&, padded = padded, pieces = pieces](int64_t piece) {
    A* table = tables + piece * table_size;
    std::memset(table, 0, table_size * sizeof(A));
    for_ids<Index>(a, count * piece / pieces, count * (piece + 1) / pieces,
                   [&](int64_t i, int64_t n, int64_t t, int64_t id) {
                     if (!in_range(id, a.V)) {
                       report_first(&bad, i);
                       return false;
                     }
                     if (id == a.padding_idx) return true;
                     const T* from = rows.at(n, t);
                     if (rows.end - from >= padded)
                       add_padded_row(table + id * padded, from, padded);
                     else
                       add_row(table + id * padded, from, a.D);
                     return true;
                   });
  });
  if (bad >= 0) return bad;
  T* dweight = static_cast<T*>(a.dweight);
  for (int64_t v = 0; v < a.V; ++v) {
    for (int64_t d = 0; d < a.D; d += kLanes<A>) {
      const A* from = tables + v * padded + d;
      vec_t<A> sum = load(from);
      for (int64_t piece = 1; piece < pieces; ++piece) sum += load(from + piece * table_size);
      const int64_t lanes = a.D - d < kLanes<A> ? a.D - d : kLanes<A>;
      store_part(dweight + v * a.D + d, sum, lanes);
    }
  }
  return -1;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
