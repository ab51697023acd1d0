// The gradient of embedding_gather where the table has few rows: dweight[v, d] = the sum of the
// rows of doutput whose id is v.
//
// A block reads a fixed piece of the batch. Its threads are `slots` x `lanes`: a lane owns W
// columns, a slot every slots-th id of the piece. Each thread has its own accumulators in shared
// memory, [v][thread][W]: no synchronization is needed, and neighboring threads use neighboring
// banks whatever their ids are. Ids out of range go to row V. Then the slots are added in order,
// and the pieces by a second kernel. All sizes, and so the bits, follow from N*T, V, D and dtype
// alone.
#pragma once

#include <type_traits>

#include "cuda/device/launch.cuh"
#include "cuda/device/vector.cuh"
#include "cuda/embedding_gather/ids.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int64_t kSmallBytes = kDefaultShared;  // accumulators of a block
constexpr int64_t kSmallBlocks = 512;            // four blocks on each of 128 multiprocessors
constexpr int kSumColumns = 32, kSumRows = 32;

// Above this a multiprocessor has too few threads to saturate the memory; wide rows need more.
inline bool table_is_small(int64_t V, int64_t D) { return V <= (D <= 16 ? 256 : 128); }

struct SmallPlan {
  int columns;     // of a thread, W
  int lanes;       // of a row, within a chunk
  int slots;       // ids that a block reads at once
  int64_t chunks;  // of the columns
  int64_t piece_ids, pieces;
  int64_t threads() const { return static_cast<int64_t>(lanes) * slots; }
};

// Threads of a block, at most: their registers must leave room for four blocks.
template <int W>
constexpr int kSmallThreads = W == 2 ? 160 : 128;
template <int W, bool f64>
constexpr int kSmallBatch = f64      ? 8 / W
                            : W == 1 ? 16
                                     : 8;  // ids that a thread has in flight

inline SmallPlan plan_small(int64_t count, int64_t V, int64_t D, DType dtype) {
  const int64_t acc_bytes = dtype == DType::f64 ? 8 : 4;
  SmallPlan p{};
  p.columns = dtype != DType::f64 && D % 4 == 0 ? 4 : D % 2 == 0 ? 2 : 1;
  const auto most = [&] {
    return clamp(kSmallBytes / (acc_bytes * (V + 1) * p.columns), 1,
                 p.columns == 2 ? kSmallThreads<2> : kSmallThreads<1>);
  };
  while (p.columns > 1 && most() < 64) p.columns /= 2;
  const int64_t all_lanes = D / p.columns;
  p.chunks = ceil_div(all_lanes, most());
  p.lanes = static_cast<int>(ceil_div(all_lanes, p.chunks));
  const int64_t batch = dtype == DType::f64
                            ? (p.columns == 1 ? kSmallBatch<1, true> : kSmallBatch<2, true>)
                            : (p.columns == 1 ? kSmallBatch<1, false> : kSmallBatch<4, false>);
  p.slots = static_cast<int>(clamp(ceil_div(count, batch), 1, most() / p.lanes));
  // Whole batches of all slots; at least two ids for each row of the table that is then added.
  const int64_t step = p.slots * batch;
  const int64_t ids = clamp(ceil_div(count * p.chunks, kSmallBlocks), 2 * V, count);
  p.piece_ids = round_up(ids, step);
  p.pieces = ceil_div(count, p.piece_ids);
  return p;
}

// Steps of `slots` positions through an (N, T) array: row n, column t.
struct Walk {
  int64_t row_stride, col_stride;
  int64_t step, wrap;  // to the next position in elements; where t passes T
};

inline Walk walk_of(const Positions& p, int64_t slots, int64_t T) {
  const int64_t step = slots / T * p.row_stride + slots % T * p.col_stride;
  return {p.row_stride, p.col_stride, step, step + p.row_stride - T * p.col_stride};
}

template <class E>
struct SmallTable {
  IdArray ids;
  const E* doutput;
  Walk id_walk, doutput_walk;
  int64_t T, step_t;  // step_t: by how much t grows with each step
  int64_t D, count, piece_ids;
  unsigned chunks;
  int V, lanes, slots;
  int padding_idx;  // -1: none

  bool whole;         // neighbors are equally far apart and vectors of W may be loaded
  acc_t<E>* partial;  // (pieces, V, D)
  E* dweight;         // instead, where there is only one piece; else null
};

template <class T, class Index, int W>
__global__ void __launch_bounds__(kSmallThreads<W>, 4)
    embedding_gather_backward_small_kernel(const SmallTable<T> s) {
  using A = acc_t<T>;
  // Sixteen 64-bit ids would need too many registers. The order of the sums stays the same.
  constexpr int kBatch =
      sizeof(Index) == 8 ? 8 / (sizeof(T) == 8 ? W : 1) : kSmallBatch<W, sizeof(T) == 8>;
  A* table = dynamic_shared<A>();
  const int threads = s.lanes * s.slots;
  const int slot = threadIdx.x / s.lanes, lane = threadIdx.x - slot * s.lanes;
  const int64_t piece = blockIdx.x / s.chunks, chunk = blockIdx.x % s.chunks;
  const int64_t first_column = chunk * s.lanes * W, column = first_column + lane * W;
  const int64_t first = piece * s.piece_ids;
  const int ids = static_cast<int>(s.count - first < s.piece_ids ? s.count - first : s.piece_ids);
  A* own = table + threadIdx.x * W;
  const int pitch = threads * W;

  const Vector<A, W> zero{};
  for (int v = 0; v <= s.V; ++v) store_vector(own + v * pitch, zero);

  const int64_t n = quotient(first + slot, s.T);
  int64_t t = first + slot - n * s.T;
  const Index* id_at =
      static_cast<const Index*>(s.ids.data) + n * s.id_walk.row_stride + t * s.id_walk.col_stride;
  const T* value_at =
      s.doutput + n * s.doutput_walk.row_stride + t * s.doutput_walk.col_stride + column;
  const int counted = column < s.D ? ids : 0;  // the last chunk may have lanes to spare
  int begin = slot;
  // A batch of ids, all loads first. Whole: none is missing, neighbors are equally far apart, and
  // vectors may be loaded.
  const auto add_batch = [&](auto whole) {
    constexpr bool kWhole = decltype(whole)::value;
    Index id[kBatch];
    Vector<T, W> value[kBatch];
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      if constexpr (kWhole) {
        id[u] = id_at[u * s.id_walk.step];
        value[u] = load_vector_once<W>(value_at + u * s.doutput_walk.step);
      } else {
        if (begin + u * s.slots < counted) {
          id[u] = *id_at;
#pragma unroll
          for (int w = 0; w < W; ++w) value[u].item[w] = value_at[w];
        }
        t += s.step_t;
        const bool wraps = t >= s.T;
        t -= wraps ? s.T : 0;
        id_at += wraps ? s.id_walk.wrap : s.id_walk.step;
        value_at += wraps ? s.doutput_walk.wrap : s.doutput_walk.step;
      }
    }
    if constexpr (kWhole) {
      id_at += kBatch * s.id_walk.step;
      value_at += kBatch * s.doutput_walk.step;
    }
    const auto counts = [&](int u) { return kWhole || begin + u * s.slots < counted; };
    bool bad = false;
#pragma unroll
    for (int u = 0; u < kBatch; ++u) bad |= counts(u) && !in_range(id[u], s.V);
    if (bad) {  // a separate branch, so that all loads are in flight before the first sum
      int last = 0;
      int64_t value_of_last = 0;
#pragma unroll
      for (int u = 0; u < kBatch; ++u) {
        if (!counts(u) || in_range(id[u], s.V)) continue;
        last = u, value_of_last = id[u];
        id[u] = static_cast<Index>(s.V);
      }
      if (column == 0)
        record_bad_id(&bad_ids, s.ids.site, first + begin + last * s.slots, value_of_last);
    }
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      if (!counts(u)) break;
      A* at = own + static_cast<int>(id[u]) * pitch;
      Vector<A, W> sum = load_vector<W>(at);
      A x[W];
      unpack(value[u], x);
#pragma unroll
      for (int w = 0; w < W; ++w) sum.item[w] += x[w];
      store_vector(at, sum);
    }
    begin += kBatch * s.slots;
  };
  if (s.whole)
    while (begin + (kBatch - 1) * s.slots < counted) add_batch(std::true_type{});
  while (begin < counted) add_batch(std::false_type{});
  __syncthreads();

  const int columns =
      static_cast<int>(s.D - first_column < s.lanes * W ? s.D - first_column : s.lanes * W);
  for (int i = threadIdx.x; i < s.V * columns; i += threads) {
    const int v = i / columns, c = i - v * columns;
    const A* from = table + v * pitch + c;
    A sum = 0;
#pragma unroll 8
    for (int k = 0; k < s.slots; ++k) sum += from[k * s.lanes * W];
    if (v == s.padding_idx) sum = 0;
    if (s.dweight != nullptr)
      s.dweight[v * s.D + first_column + c] = from_acc<T>(sum);
    else
      s.partial[(piece * s.V + v) * s.D + first_column + c] = sum;
  }
}

// dweight[i] = the sum over the pieces of partial[piece][i]: row r of a block adds every
// kSumRows-th piece, then the first row adds the rows.
template <class T>
__global__ void __launch_bounds__(kSumColumns* kSumRows)
    embedding_gather_backward_small_sum_kernel(const acc_t<T>* __restrict__ partial, int64_t pieces,
                                               int64_t size, T* __restrict__ dweight) {
  using A = acc_t<T>;
  __shared__ A sums[kSumRows][kSumColumns];
  const int row = threadIdx.x / kSumColumns, lane = threadIdx.x % kSumColumns;
  const int64_t i = int64_t{blockIdx.x} * kSumColumns + lane;
  A sum = 0;
  if (i < size) {
#pragma unroll 16
    for (int64_t p = row; p < pieces; p += kSumRows) sum += partial[p * size + i];
  }
  sums[row][lane] = sum;
  __syncthreads();
  if (row != 0 || i >= size) return;
#pragma unroll
  for (int r = 1; r < kSumRows; ++r) sum += sums[r][lane];
  dweight[i] = from_acc<T>(sum);
}

// The tables of all pieces, unless there is only one.
inline size_t small_table_workspace(const EmbeddingGatherBackward& a) {
  const SmallPlan p = plan_small(a.N * a.T, a.V, a.D, a.dtype);
  const int64_t acc_bytes = a.dtype == DType::f64 ? 8 : 4;
  return p.pieces == 1 ? 0 : static_cast<size_t>(round_up(p.pieces * a.V * a.D * acc_bytes, 64));
}

template <class T, class Index, int W>
int launch_small(const SmallTable<T>& s, const SmallPlan& p, void* stream) {
  const int64_t shared = p.threads() * (s.V + 1) * W * static_cast<int64_t>(sizeof(acc_t<T>));
  return launch<embedding_gather_backward_small_kernel<T, Index, W>>(
      p.pieces * p.chunks, dim3(static_cast<unsigned>(p.threads())), static_cast<size_t>(shared),
      stream, s);
}

template <class T, class Index>
int sum_small_table(const EmbeddingGatherBackward& a, void* stream) {
  const int64_t count = a.N * a.T, size = a.V * a.D;
  const SmallPlan p = plan_small(count, a.V, a.D, a.dtype);
  SmallTable<T> s{};
  s.ids = ids_of(a);
  s.doutput = static_cast<const T*>(a.doutput);
  const Positions id_at = positions_of(a.N, a.T, a.input_row_stride, a.input_col_stride);
  const Positions value_at = positions_of(a.N, a.T, a.doutput_row_stride, a.D);
  const bool even = id_at.even && value_at.even;
  s.T = even ? count : a.T;  // even: one row of all
  s.step_t = p.slots % s.T;
  s.id_walk = walk_of(id_at, p.slots, s.T);
  s.doutput_walk = walk_of(value_at, p.slots, s.T);
  s.D = a.D, s.count = count, s.piece_ids = p.piece_ids, s.chunks = static_cast<unsigned>(p.chunks);
  s.padding_idx = static_cast<int>(a.padding_idx);
  s.V = static_cast<int>(a.V), s.lanes = p.lanes, s.slots = p.slots;
  s.whole = even && vector_items(sizeof(T), {a.doutput},
                                 {a.D, a.N > 1 ? a.doutput_row_stride : 0}) >= p.columns;
  s.partial = static_cast<acc_t<T>*>(a.workspace);
  T* dweight = static_cast<T*>(a.dweight);
  if (p.pieces == 1) s.dweight = dweight;
  int error = cudaSuccess;
  if (p.columns == 1) {
    error = launch_small<T, Index, 1>(s, p, stream);
  } else if (p.columns == 2) {
    error = launch_small<T, Index, 2>(s, p, stream);
  } else {
    if constexpr (sizeof(T) < 8) error = launch_small<T, Index, 4>(s, p, stream);
  }
  if (error != cudaSuccess || p.pieces == 1) return error;
  return launch<embedding_gather_backward_small_sum_kernel<T>>(
      ceil_div(size, kSumColumns), dim3(kSumColumns * kSumRows), 0, stream,
      static_cast<const acc_t<T>*>(s.partial), p.pieces, size, dweight);
}

}  // namespace
}  // namespace mlpkern::cuda
