// The backward of embedding_gather for a large table: one stable pass distributes the positions
// over buckets of neighboring rows. A bucket's slice of dweight then stays in cache while one task
// clears it and adds the rows in order of position: no atomics, no sort, and dweight is written
// once.
#pragma once

#include <cstring>

#include "cpu/embedding_gather/gradient_rows.h"
#include "cpu/embedding_gather/positions.h"
#include "cpu/threads/parallel.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kSliceBytes = 1 << 17;  // slice of dweight of one bucket: half of a small L2
constexpr int64_t kPrefetchAhead = 8;

struct Entry {
  int64_t n_t, id;  // flat position and row
};

struct BucketPlan {
  int64_t shift, buckets, pieces;  // rows of one bucket: 1 << shift
  int64_t counts_bytes, entries_bytes, slice_bytes;
};

BucketPlan plan_buckets(const EmbeddingGatherBackward& a) {
  BucketPlan p;
  const int64_t row_bytes = a.D * (a.dtype == DType::f64 ? 8 : 4), count = a.N * a.T;
  p.shift = 0;
  while ((row_bytes << (p.shift + 1)) <= kSliceBytes || (a.V >> p.shift) > 4096) ++p.shift;
  p.buckets = (a.V >> p.shift) + 1;
  p.pieces = ceil_div(count, kPieceIds);
  p.pieces = p.pieces < 1 ? 1 : p.pieces > 64 ? 64 : p.pieces;
  p.counts_bytes = round_up((p.pieces * p.buckets + 1) * sizeof(int64_t), 64);
  p.entries_bytes = round_up(count * sizeof(Entry), 64);
  const bool half = a.dtype == DType::bf16 || a.dtype == DType::f16;
  p.slice_bytes = half ? round_up(row_bytes << p.shift, 64) : 0;  // sums of 16-bit gradients
  return p;
}

template <class T, class Index>
int64_t sum_by_buckets(const EmbeddingGatherBackward& a) {
  using A = acc_t<T>;
  const BucketPlan p = plan_buckets(a);
  const int64_t count = a.N * a.T;
  char* scratch = static_cast<char*>(a.workspace);
  int64_t* counts = reinterpret_cast<int64_t*>(scratch);  // (bucket, piece), and the total
  Entry* entries = reinterpret_cast<Entry*>(scratch + p.counts_bytes);
  char* slices = scratch + p.counts_bytes + p.entries_bytes;

  const auto piece_begin = [&](int64_t piece) { return count * piece / p.pieces; };
  std::memset(counts, 0, p.counts_bytes);
  int64_t bad = -1;
  parallel_for(p.pieces, [&](int64_t piece) {
    for_ids<Index>(a, piece_begin(piece), piece_begin(piece + 1),
                   [&](int64_t i, int64_t, int64_t, int64_t id) {
                     if (!in_range(id, a.V)) {
                       report_first(&bad, i);
                       return false;
                     }
                     counts[(id >> p.shift) * p.pieces + piece] += id != a.padding_idx;
                     return true;
                   });
  });
  if (bad >= 0) return bad;

  int64_t total = 0;
  for (int64_t k = 0; k <= p.buckets * p.pieces; ++k) {  // prefix sums: where the first entry goes
    const int64_t here = counts[k];
    counts[k] = total;
    total += here;
  }
  parallel_for(p.pieces, [&](int64_t piece) {
    for_ids<Index>(a, piece_begin(piece), piece_begin(piece + 1),
                   [&](int64_t i, int64_t, int64_t, int64_t id) {
                     if (id == a.padding_idx) return true;
                     entries[counts[(id >> p.shift) * p.pieces + piece]++] = {i, id};
                     return true;
                   });
  });

  // counts[b, last piece] has moved to the end of bucket b.
  const GradientRows<T> rows(a);
  T* dweight = static_cast<T*>(a.dweight);
  parallel_for_dynamic(p.buckets, [&](int64_t bucket, int64_t worker) {
    const int64_t first_row = bucket << p.shift;
    if (first_row >= a.V) return;
    const int64_t past_row =
        a.V < (first_row + (int64_t{1} << p.shift)) ? a.V : first_row + (int64_t{1} << p.shift);
    const int64_t size = (past_row - first_row) * a.D;
    T* out = dweight + first_row * a.D;
    A* slice;
    if constexpr (sizeof(T) == sizeof(A))
      slice = reinterpret_cast<A*>(out);
    else
      slice = reinterpret_cast<A*>(slices + worker * p.slice_bytes);
    std::memset(slice, 0, size * sizeof(A));
    const int64_t begin = bucket == 0 ? 0 : counts[bucket * p.pieces - 1];
    const int64_t end = counts[(bucket + 1) * p.pieces - 1];
    const auto gradient = [&](int64_t e) {
      const int64_t i = entries[e].n_t, n = i / a.T;
      return rows.at(n, i - n * a.T);
    };
    for (int64_t e = begin; e < end; ++e) {
      if (e + kPrefetchAhead < end) {
        const char* next = reinterpret_cast<const char*>(gradient(e + kPrefetchAhead));
        const int64_t bytes = a.D * static_cast<int64_t>(sizeof(T));
        for (int64_t k = 0; k < bytes && k < 512; k += 64) __builtin_prefetch(next + k);
      }
      add_row(slice + (entries[e].id - first_row) * a.D, gradient(e), a.D);
    }
    if constexpr (sizeof(T) != sizeof(A)) {
      for (int64_t k = 0; k < size; k += kLanes<A>) {
        if (size - k >= kLanes<A>)
          store(out + k, load(slice + k));
        else
          store_part(out + k, load_part(slice + k, size - k), size - k);
      }
    }
  });
  return -1;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
