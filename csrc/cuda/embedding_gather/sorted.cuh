// The gradient of embedding_gather where the table has many rows.
//
// 1. keys       every id becomes (id, position); one out of range or equal to padding_idx
//               becomes (0, kSkip), which adds nothing
// 2. sort       stable, by id: positions of one id stay in order
// 3. segments, runs   of segments.cuh add the rows of doutput along the list
// Rows of dweight whose id does not occur are cleared first. The cuts of the list follow from N*T,
// D and dtype alone.
#pragma once

#include "cuda/device/launch.cuh"
#include "cuda/device/vector.cuh"
#include "cuda/embedding_gather/ids.cuh"
#include "cuda/embedding_gather/segments.cuh"
#include "cuda/sort.h"

namespace mlpkern::cuda {
namespace {

constexpr int kKeyThreads = 256, kKeyBatch = 4;
constexpr int kWantedEntries = 512;  // of a tile
constexpr int kLeastPiece = 4;
constexpr int64_t kSegmentBlocks = 1 << 10;  // smaller tiles rather than fewer blocks

// Whether ids and positions need 64 bits.
inline bool is_wide(int64_t count, int64_t V) {
  return count >= int64_t{1} << 31 || V > kSkip<uint32_t>;
}

inline int key_bits(int64_t V) {
  int bits = 1;
  while (bits < 63 && (V - 1) >> bits != 0) ++bits;
  return bits;
}

struct SortedPlan {
  int lanes, teams;  // of a block
  int piece;         // entries of a team
  int64_t chunks;    // of the columns
  int64_t tile, tiles;
  int run_lanes;  // of a block that adds carries
  int64_t run_chunks;
  int64_t pitch;  // of a row of carries, in accumulators

  size_t list_bytes;  // of one list of words
  size_t sort_bytes, carry_bytes;
};

inline SortedPlan plan_sorted(int64_t count, int64_t D, DType dtype, int64_t word_bytes) {
  const int64_t bytes = dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
  const int64_t columns = kVectorBytes / bytes, all_lanes = ceil_div(D, columns);
  SortedPlan p{};
  p.chunks = ceil_div(all_lanes, 32);
  p.lanes = static_cast<int>(ceil_div(all_lanes, p.chunks));
  p.teams = kSegmentThreads / p.lanes;
  const int64_t most = clamp(kWantedEntries / p.teams, kLeastPiece, kTileEntries);
  p.piece = static_cast<int>(
      clamp(ceil_div(count * p.chunks, kSegmentBlocks * p.teams), kLeastPiece, most));
  p.tile = int64_t{p.teams} * p.piece;
  p.tiles = ceil_div(count, p.tile);
  const int64_t acc_bytes = dtype == DType::f64 ? 8 : 4, items = kVectorBytes / acc_bytes;
  const int64_t vectors = p.chunks * p.lanes * columns / items;
  p.run_chunks = ceil_div(vectors, 32);
  p.run_lanes = static_cast<int>(ceil_div(vectors, p.run_chunks));
  p.pitch = p.run_chunks * p.run_lanes * items;  // so that no lane is beyond the row
  p.list_bytes = static_cast<size_t>(round_up(count * word_bytes, 64));
  p.sort_bytes = sort_pairs_workspace(count);
  p.carry_bytes = static_cast<size_t>(round_up(p.tiles * p.pitch * acc_bytes, 64));
  return p;
}

inline size_t sorted_workspace(const EmbeddingGatherBackward& a) {
  const int64_t count = a.N * a.T;
  const SortedPlan p = plan_sorted(count, a.D, a.dtype, is_wide(count, a.V) ? 8 : 4);
  return 4 * p.list_bytes + p.sort_bytes + 2 * p.carry_bytes;
}

template <class Index, class Word>
__global__ void __launch_bounds__(kKeyThreads)
    embedding_gather_backward_keys_kernel(const IdArray ids, int64_t count, int64_t padding_idx,
                                          Word* __restrict__ keys, Word* __restrict__ positions) {
  const int64_t first = int64_t{blockIdx.x} * (kKeyThreads * kKeyBatch) + threadIdx.x;
#pragma unroll
  for (int u = 0; u < kKeyBatch; ++u) {
    const int64_t i = first + u * kKeyThreads;
    if (i >= count) return;
    const int64_t id = id_at<Index>(ids, i);
    const bool good = in_range(id, ids.V);
    const bool counts = good && id != padding_idx;
    keys[i] = counts ? static_cast<Word>(id) : 0;
    positions[i] = counts ? static_cast<Word>(i) : kSkip<Word>;
    if (!good) record_bad_id(&bad_ids, ids.site, i, id);
  }
}

template <class T, class Word>
int launch_segments(const Segments<T, Word>& s, const SortedPlan& p, int granule, void* stream) {
  const Blocks grid = p.tiles * p.chunks;
  const dim3 block(static_cast<unsigned>(p.lanes * p.teams));
  if constexpr (sizeof(T) == 2) {
    if (granule == 8)
      return launch<embedding_gather_backward_segments_kernel<T, Word, 8>>(grid, block, 0, stream,
                                                                           s);
  }
  if constexpr (sizeof(T) <= 4) {
    if (granule == 4)
      return launch<embedding_gather_backward_segments_kernel<T, Word, 4>>(grid, block, 0, stream,
                                                                           s);
  }
  if (granule == 2)
    return launch<embedding_gather_backward_segments_kernel<T, Word, 2>>(grid, block, 0, stream, s);
  return launch<embedding_gather_backward_segments_kernel<T, Word, 1>>(grid, block, 0, stream, s);
}

template <class T, class Index, class Word>
int sum_sorted_words(const EmbeddingGatherBackward& a, void* stream) {
  const int64_t count = a.N * a.T;
  const SortedPlan p = plan_sorted(count, a.D, a.dtype, sizeof(Word));
  char* scratch = static_cast<char*>(a.workspace);
  const auto take = [&](size_t bytes) { return scratch += bytes, scratch - bytes; };
  // The keys at both ends, where a test notices a read before or after them.
  SortPairs<Word> pairs{};
  pairs.keys[0] = reinterpret_cast<Word*>(take(p.list_bytes));
  const auto heads = reinterpret_cast<acc_t<T>*>(take(p.carry_bytes));

  const auto tails = reinterpret_cast<acc_t<T>*>(take(p.carry_bytes));
  void* sort_workspace = take(p.sort_bytes);

  pairs.positions[0] = reinterpret_cast<Word*>(take(p.list_bytes));
  pairs.positions[1] = reinterpret_cast<Word*>(take(p.list_bytes));
  pairs.keys[1] = reinterpret_cast<Word*>(take(p.list_bytes));

  int error = cudaMemsetAsync(a.dweight, 0, static_cast<size_t>(a.V * a.D) * sizeof(T),
                              static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) return error;
  error = launch<embedding_gather_backward_keys_kernel<Index, Word>>(
      ceil_div(count, kKeyThreads * kKeyBatch), dim3(kKeyThreads), 0, stream, ids_of(a), count,
      a.padding_idx, pairs.keys[0], pairs.positions[0]);
  if (error != cudaSuccess) return error;
  error = sort_pairs(&pairs, count, key_bits(a.V), sort_workspace, stream);
  if (error != cudaSuccess) return error;

  Segments<T, Word> s{};
  s.keys = pairs.keys[pairs.sorted], s.positions = pairs.positions[pairs.sorted];
  s.count = count;
  s.doutput = static_cast<const T*>(a.doutput);
  s.doutput_at = positions_of(a.N, a.T, a.doutput_row_stride, a.D);
  s.D = a.D, s.chunks = static_cast<unsigned>(p.chunks), s.lanes = p.lanes, s.teams = p.teams,
  s.piece = p.piece;
  s.pitch = p.pitch;
  s.heads = heads, s.tails = tails;
  s.dweight = static_cast<T*>(a.dweight);
  const int granule =
      vector_items(sizeof(T), {a.doutput, a.dweight}, {a.D, a.N > 1 ? a.doutput_row_stride : 0});
  error = launch_segments(s, p, granule, stream);
  if (error != cudaSuccess || p.tiles == 1) return error;

  const int parts = kRunThreads / p.run_lanes;

  return launch<embedding_gather_backward_runs_kernel<T, Word>>(
      p.tiles * p.run_chunks, dim3(static_cast<unsigned>(p.run_lanes * parts)), 0, stream, s.keys,
      count, p.tile, static_cast<const acc_t<T>*>(heads), static_cast<const acc_t<T>*>(tails),
      p.pitch, static_cast<unsigned>(p.run_chunks), p.run_lanes, parts, a.D, s.dweight);
}

template <class T, class Index>
int sum_sorted(const EmbeddingGatherBackward& a, void* stream) {
  return is_wide(a.N * a.T, a.V) ? sum_sorted_words<T, Index, uint64_t>(a, stream)
                                 : sum_sorted_words<T, Index, uint32_t>(a, stream);
}

}  // namespace
}  // namespace mlpkern::cuda
