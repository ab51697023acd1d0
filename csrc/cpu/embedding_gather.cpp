// embedding_gather on a CPU: output[n, t*D + d] = weight[input[n, t], d] and its gradient.
//
// forward: ids in pieces of the batch, a piece per task; a row is copied by overlapping moves, so
// any D costs a few instructions and nothing beyond the row is read or written.
//
// backward, small table: every piece of the batch sums into a table of its own (rows padded to
// whole vectors), and the tables are added in order.
//
// backward, large table: one stable pass distributes the positions over buckets of neighboring
// rows; a bucket's slice of dweight then stays in cache while one task clears it and adds the rows
// in order of position. No atomics, no sort, and a dense gradient is written once.
//
// Compile alone:
//   g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx512 -march=skylake-avx512 -c embedding_gather.cpp
#include <cstring>
#include <type_traits>

#include "cpu/threads/parallel.h"
#include "cpu/vector/ids.h"
#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kSerialBytes = 1 << 17;  // below this a parallel region costs more than it saves
constexpr int64_t kPieceIds = 8192;        // ids of one piece of the batch
constexpr int64_t kSmallTableBytes = 1 << 16;
constexpr int64_t kSliceBytes = 1 << 17;  // slice of dweight of one bucket: half of a small L2
constexpr int64_t kPrefetchAhead = 8;

int64_t element_size(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }

// Walks the positions [begin, end) of an (N, T) array of ids: visit(position, row, column, id) ->
// bool "go on". The division is paid once a range, not once an id.
template <class Index, class Args, class Visit>
MLPKERN_INLINE void for_ids(const Args& a, int64_t begin, int64_t end, const Visit& visit) {
  const Index* input = static_cast<const Index*>(a.input);
  int64_t n = begin / a.T, t = begin - n * a.T;
  const Index* id = input + n * a.input_row_stride + t * a.input_col_stride;
  for (int64_t i = begin; i < end; ++i) {
    if (!visit(i, n, t, static_cast<int64_t>(*id))) return;
    if (++t == a.T) {
      t = 0;
      ++n;
      id = input + n * a.input_row_stride;
    } else {
      id += a.input_col_stride;
    }
  }
}

// ---------------------------------------------------------------------------------- forward

// Copies a row of at least Chunk bytes by moves of Chunk bytes; the last two overlap.
template <int Chunk>
MLPKERN_INLINE void copy_row(char* to, const char* from, int64_t bytes) {
  int64_t at = 0;
  for (; at + 2 * Chunk < bytes; at += Chunk) __builtin_memcpy(to + at, from + at, Chunk);
  __builtin_memcpy(to + at, from + at, Chunk);
  __builtin_memcpy(to + bytes - Chunk, from + bytes - Chunk, Chunk);
}

template <class Index, int Chunk>
int64_t gather(const EmbeddingGatherForward& a, int64_t row_bytes) {
  const int64_t count = a.N * a.T, stride = a.weight_row_stride * element_size(a.dtype);
  const char* weight = static_cast<const char*>(a.weight);
  char* output = static_cast<char*>(a.output);
  int64_t bad = -1;
  const int64_t pieces = count * row_bytes < kSerialBytes ? 1 : ceil_div(count, kPieceIds / 4);
  parallel_for(pieces, [&](int64_t piece) {
    for_ids<Index>(a, count * piece / pieces, count * (piece + 1) / pieces,
                   [&](int64_t i, int64_t, int64_t, int64_t id) {
                     if (!in_range(id, a.V)) {
                       report_first(&bad, i);
                       return false;
                     }
                     copy_row<Chunk>(output + i * row_bytes, weight + id * stride, row_bytes);
                     return true;
                   });
  });
  return bad;
}

template <class Index>
int64_t gather_by_width(const EmbeddingGatherForward& a) {
  const int64_t bytes = a.D * element_size(a.dtype);
  if (bytes >= kVectorBytes) return gather<Index, kVectorBytes>(a, bytes);
  if (bytes >= 32) return gather<Index, 32>(a, bytes);
  if (bytes >= 16) return gather<Index, 16>(a, bytes);
  if (bytes >= 8) return gather<Index, 8>(a, bytes);
  return bytes >= 2 ? gather<Index, 2>(a, bytes) : -1;  // D == 0 has nothing to copy
}

// ---------------------------------------------------------------------------------- backward

// The gradient row of position (n, t) begins at doutput + n * doutput_row_stride + t * D.
template <class T>
struct GradientRows {
  const T* doutput;
  int64_t row_stride, D;
  const T* end;  // one past the last element that may be read

  explicit GradientRows(const EmbeddingGatherBackward& a)
      : doutput(static_cast<const T*>(a.doutput)),
        row_stride(a.doutput_row_stride),
        D(a.D),
        end(doutput + (a.N - 1) * a.doutput_row_stride + a.T * a.D) {}

  MLPKERN_INLINE const T* at(int64_t n, int64_t t) const {
    return doutput + n * row_stride + t * D;
  }
};

// to[0, D) += from[0, D)
template <class T>
MLPKERN_INLINE void add_row(acc_t<T>* to, const T* from, int64_t D) {
  constexpr int64_t L = kLanes<acc_t<T>>;
  int64_t d = 0;
  for (; d + L <= D; d += L) store(to + d, load(to + d) + load(from + d));
  if (d < D) store_part(to + d, load_part(to + d, D - d) + load_part(from + d, D - d), D - d);
}

// to[0, D padded) += from[0, D padded): whole vectors; what lands in the padding is never used.
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
  const int64_t worth = count / (4 * (a.V > 0 ? a.V : 1));  // adding tables stays the lesser work
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
  p.slice_bytes = half ? round_up(row_bytes << p.shift, 64) : 0;  // float32 sums of half gradients
  return p;
}

template <class T, class Index>
int64_t sum_by_buckets(const EmbeddingGatherBackward& a) {
  using A = acc_t<T>;
  const BucketPlan p = plan_buckets(a);
  const int64_t count = a.N * a.T;
  char* scratch = static_cast<char*>(a.workspace);
  int64_t* counts = reinterpret_cast<int64_t*>(scratch);  // (bucket, piece), then one past the end
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
  for (int64_t k = 0; k <= p.buckets * p.pieces; ++k) {  // counts -> where the first entry goes
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

  // Now counts[b, last piece] is the end of bucket b.
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

size_t embedding_gather_forward_workspace(const EmbeddingGatherForward&) { return 0; }

int64_t embedding_gather_forward(const EmbeddingGatherForward& args) {
  if (args.N * args.T == 0) return -1;
  return for_index_type(args.index_type, [&](auto* index) {
    return gather_by_width<std::remove_const_t<std::remove_pointer_t<decltype(index)>>>(args);
  });
}

size_t embedding_gather_backward_workspace(const EmbeddingGatherBackward& args) {
  const int64_t acc_size = args.dtype == DType::f64 ? 8 : 4;
  if (table_is_small(args)) {
    const SmallTablePlan plan = plan_small_table(args);
    return plan.pieces * args.V * plan.padded * acc_size;
  }
  const BucketPlan plan = plan_buckets(args);
  return plan.counts_bytes + plan.entries_bytes + plan.slice_bytes * kMaxWorkers;
}

int64_t embedding_gather_backward(const EmbeddingGatherBackward& args) {
  if (args.N * args.T == 0) {
    std::memset(args.dweight, 0, args.V * args.D * element_size(args.dtype));
    return -1;
  }
  return for_dtype(args.dtype, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    return for_index_type(args.index_type, [&](auto* index) {
      using Index = std::remove_const_t<std::remove_pointer_t<decltype(index)>>;
      return table_is_small(args) ? sum_into_small_tables<T, Index>(args)
                                  : sum_by_buckets<T, Index>(args);
    });
  });
}

}  // namespace mlpkern::cpu::MLPKERN_ISA
