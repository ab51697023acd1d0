// The gradient of embedding_gather where the table has many rows.
//
// 1. keys       every id becomes (id, position); one that does not count (out of range,
//               padding_idx) becomes (0, kSkip), which adds nothing
// 2. sort       stable, by id: positions of one id stay in order
// 3. segments   the sorted list is cut into tiles, a block each, and a tile into equal pieces, a
//               team of threads each; a lane of a team owns 16 bytes of every row. A team adds the
//               rows of its piece in order. An id within one piece is written at once, one that
//               crosses pieces is put together in shared memory by the team where it begins, one
//               that crosses tiles by
// 4. runs       a block for each tile in which such an id begins
// However often one id occurs, every team adds the same number of rows. Rows of dweight whose id
// does not occur are cleared beforehand. Cuts depend on N*T, D and dtype only.
#pragma once

#include "cuda/embedding_gather_ids.cuh"
#include "cuda/launch.cuh"
#include "cuda/sort.h"
#include "cuda/vector.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kKeyThreads = 256, kKeyBatch = 4;
constexpr int kSegmentThreads = 256;  // at most
template <int Loads>
constexpr int kSegmentBatch = Loads > 4 ? 2 : 4;  // rows a thread has in flight
constexpr int kTileEntries = 1024;                // at most
constexpr int kWantedEntries = 512;
constexpr int kLeastPiece = 4;
constexpr int64_t kSegmentBlocks = 1 << 10;  // smaller tiles rather than fewer blocks
constexpr int kRunThreads = 128;             // at most

template <class Word>
constexpr Word kSkip = ~Word{1};  // no position and no key has this value

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
struct Segments {
  const Word* keys;  // sorted
  const Word* positions;
  int64_t count;
  const T* doutput;
  Positions doutput_at;
  int64_t D;
  unsigned chunks;
  int lanes, teams, piece;
  int64_t pitch;
  acc_t<T>* heads;  // (tiles, pitch): what a tile adds to an id that began before it
  acc_t<T>* tails;  // and to an id that begins in it and goes on
  T* dweight;
};

// Granule: elements of one load. A lane owns 16 bytes of a row as one or more granules, `lanes`
// granules apart, so that neighboring lanes load neighboring granules.
template <class T, class Word, int Granule>
__global__ void __launch_bounds__(kSegmentThreads, 4)
    embedding_gather_backward_segments_kernel(const Segments<T, Word> s) {
  using A = acc_t<T>;
  constexpr int W = kVectorItems<T>, kGranules = W / Granule;
  constexpr int kBatch = kSegmentBatch<kGranules>;
  __shared__ Word key_shared[kTileEntries + 2];  // with one neighbor on each side
  __shared__ int64_t from[kTileEntries];         // offset in doutput, -1: adds nothing
  __shared__ __align__(16) A heads[kSegmentThreads][W];
  __shared__ __align__(16) A tails[kSegmentThreads][W];
  Word* const key = key_shared + 1;
  const int64_t tile = blockIdx.x / s.chunks, chunk = blockIdx.x % s.chunks;
  const int tile_entries = s.teams * s.piece;
  const int64_t first = tile * tile_entries;
  const int entries =
      static_cast<int>(s.count - first < tile_entries ? s.count - first : tile_entries);
  const int threads = s.lanes * s.teams;
  // The neighbors: asked for before the rest, so that nothing waits for them.
  Word neighbor = kSkip<Word>;
  if (threadIdx.x == 0 && first > 0) neighbor = s.keys[first - 1];
  if (threadIdx.x == 1 && first + entries < s.count) neighbor = s.keys[first + entries];

#pragma unroll 2
  for (int i = threadIdx.x; i < entries; i += threads) {
    key[i] = s.keys[first + i];
    const Word position = s.positions[first + i];
    from[i] =
        position == kSkip<Word> ? -1 : offset_of(s.doutput_at, static_cast<int64_t>(position));
  }
  if (threadIdx.x == 0) key[-1] = neighbor;
  if (threadIdx.x == 1) key[entries] = neighbor;

  __syncthreads();

  const int team = threadIdx.x / s.lanes, lane = threadIdx.x - team * s.lanes;
  // A team beyond the end of the list has nothing to add: begin > end, and key[end] is no id's.
  const int begin = team * s.piece;
  const int end = begin + s.piece < entries ? begin + s.piece : entries;
  const int64_t first_column = chunk * s.lanes * W;
  const int64_t columns = s.D - first_column;  // of the row from here on

  const int column = lane * Granule, apart = s.lanes * Granule;  // of the first granule; of two
  const T* const doutput = s.doutput + first_column + column;
  T* const dweight = s.dweight + first_column + column;

  const auto write_row = [&](Word id, const A(&sum)[W]) {
    T* row = dweight + static_cast<int64_t>(id) * s.D;
#pragma unroll
    for (int g = 0; g < kGranules; ++g) {
      if (column + g * apart >= columns) continue;
      A part[Granule];
#pragma unroll
      for (int w = 0; w < Granule; ++w) part[w] = sum[g * Granule + w];
      store_vector_whole(row + g * apart, pack<T, Granule>(part));
    }
  };

  A sum[W] = {};
  bool began_before = key[begin - 1] == key[begin];  // of the id at hand
  for (int i = begin; i < end; i += kBatch) {
    Vector<T, Granule> value[kBatch][kGranules];
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      if (i + u >= end) continue;
      const int64_t at = from[i + u];
#pragma unroll
      for (int g = 0; g < kGranules; ++g) {
        value[u][g] = {};
        if (at >= 0 && column + g * apart < columns)
          value[u][g] = load_vector<Granule>(doutput + at + g * apart);
      }
    }
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      if (i + u >= end) continue;
#pragma unroll
      for (int g = 0; g < kGranules; ++g) {
        A x[Granule];
        unpack(value[u][g], x);
#pragma unroll
        for (int w = 0; w < Granule; ++w) sum[g * Granule + w] += x[w];
      }
      const Word id = key[i + u];
      const bool goes_on = key[i + u + 1] == id;
      if (goes_on && i + u + 1 < end) continue;
      if (!began_before && !goes_on) {
        write_row(id, sum);
      } else {
        A(&carry)[W] = began_before ? heads[threadIdx.x] : tails[threadIdx.x];
#pragma unroll
        for (int w = 0; w < W; ++w) carry[w] = sum[w];
      }
      began_before = began_before && goes_on;  // of the whole piece
#pragma unroll
      for (int w = 0; w < W; ++w) sum[w] = 0;
    }
  }
  __syncthreads();

  // Adds to `sum` what the teams after `last` have of `id`. Whether it goes on beyond the tile.
  const auto follow = [&](Word id, int last) {
    for (int past = end + (last - team) * s.piece;; past += s.piece) {
      if (past > entries) past = entries;
      if (key[past] != id) return false;
      if (past == entries) return true;
      ++last;
#pragma unroll
      for (int w = 0; w < W; ++w) sum[w] += heads[last * s.lanes + lane][w];
    }
  };
  const auto write_carry = [&](A* carries) {
    constexpr int kItems = Granule < kVectorItems<A> ? Granule : kVectorItems<A>;
    A* to = carries + tile * s.pitch + first_column + column;
#pragma unroll
    for (int g = 0; g < kGranules; ++g) {
#pragma unroll
      for (int w = 0; w < Granule; w += kItems) {
        Vector<A, kItems> part;
#pragma unroll
        for (int i = 0; i < kItems; ++i) part.item[i] = sum[g * Granule + w + i];
        store_vector_whole(to + g * apart + w, part);
      }
    }
  };
  if (team == 0 && key[-1] == key[0]) {
#pragma unroll
    for (int w = 0; w < W; ++w) sum[w] = heads[threadIdx.x][w];
    follow(key[0], team);
    write_carry(s.heads);
  }
  const Word id = key[end - 1];
  const bool begins_here = key[begin - 1] != id;
  if (begins_here && key[end] == id) {
#pragma unroll
    for (int w = 0; w < W; ++w) sum[w] = tails[threadIdx.x][w];
    if (follow(id, team))
      write_carry(s.tails);
    else
      write_row(id, sum);
  }
}

// An id that begins in one tile and ends in another: the tail of the first, then the heads of the
// others in order, in a fixed number of parts.
template <class T, class Word>
__global__ void __launch_bounds__(kRunThreads)
    embedding_gather_backward_runs_kernel(const Word* __restrict__ keys, int64_t count,
                                          int64_t tile_entries, const acc_t<T>* __restrict__ heads,
                                          const acc_t<T>* __restrict__ tails, int64_t pitch,
                                          unsigned chunks, int lanes, int parts, int64_t D,
                                          T* __restrict__ dweight) {
  using A = acc_t<T>;
  constexpr int W = kVectorItems<A>;
  __shared__ __align__(16) Vector<A, W> sums[kRunThreads];
  const int64_t tile = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  const int64_t first = tile * tile_entries, next = first + tile_entries;
  if (next >= count) return;
  const Word id = keys[next], last = keys[next - 1];
  const Word before = first > 0 ? keys[first - 1] : kSkip<Word>;
  if (last != id || before == id) return;
  // Tiles after this one that begin with the id: doubled until too many, then halved.
  int run = 1, step = 1;
  const auto begins = [&](int k) {
    const int64_t at = first + k * tile_entries;
    return at < count && keys[at] == id;
  };
  while (begins(run + step)) run += step, step *= 2;
  for (step /= 2; step > 0; step /= 2)
    if (begins(run + step)) run += step;

  const int part = threadIdx.x / lanes, lane = threadIdx.x - part * lanes;
  const int64_t column = (chunk * lanes + lane) * W;
  A sum[W] = {};
  const A* from = heads + (tile + 1) * pitch + column;
  const int share = (run + parts - 1) / parts;
  const int past = run < share * (part + 1) ? run : share * (part + 1);
#pragma unroll 8
  for (int k = share * part; k < past; ++k) {
    const Vector<A, W> head = load_vector<W>(from + k * pitch);
#pragma unroll
    for (int w = 0; w < W; ++w) sum[w] += head.item[w];
  }
#pragma unroll
  for (int w = 0; w < W; ++w) sums[threadIdx.x].item[w] = sum[w];
  __syncthreads();
  if (part != 0) return;
  Vector<A, W> total = load_vector<W>(tails + tile * pitch + column);
  for (int k = 0; k < parts; ++k) {
    const Vector<A, W> part_sum = load_vector<W>(sums[k * lanes + lane].item);
#pragma unroll
    for (int w = 0; w < W; ++w) total.item[w] += part_sum.item[w];
  }
#pragma unroll
  for (int w = 0; w < W; ++w)
    if (column + w < D)
      dweight[static_cast<int64_t>(id) * D + column + w] = from_acc<T>(total.item[w]);
}

template <class T, class Word>
int launch_segments(const Segments<T, Word>& s, const SortedPlan& p, int granule, void* stream) {
  const dim3 grid(static_cast<unsigned>(p.tiles * p.chunks));
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
      dim3(static_cast<unsigned>(ceil_div(count, kKeyThreads * kKeyBatch))), dim3(kKeyThreads), 0,
      stream, ids_of(a), count, a.padding_idx, pairs.keys[0], pairs.positions[0]);
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
      dim3(static_cast<unsigned>(p.tiles * p.run_chunks)),
      dim3(static_cast<unsigned>(p.run_lanes * parts)), 0, stream, s.keys, count, p.tile,
      static_cast<const acc_t<T>*>(heads), static_cast<const acc_t<T>*>(tails), p.pitch,
      static_cast<unsigned>(p.run_chunks), p.run_lanes, parts, a.D, s.dweight);
}

template <class T, class Index>
int sum_sorted(const EmbeddingGatherBackward& a, void* stream) {
  return is_wide(a.N * a.T, a.V) ? sum_sorted_words<T, Index, uint64_t>(a, stream)
                                 : sum_sorted_words<T, Index, uint32_t>(a, stream);
}

}  // namespace
}  // namespace mlpkern::cuda
