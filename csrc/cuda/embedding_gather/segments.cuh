// The sums of embedding_gather's gradient along the list of positions sorted by id.
//
// segments   The list is cut into tiles, a block each, and a tile into equal pieces, a team of
//            threads each; a lane of a team owns 16 bytes of every row. A team adds the rows of its
//            piece in order. The sum of an id within one piece is written at once. For an id that
//            crosses pieces, the team where it begins adds the sums of the others in shared memory.
//            For an id that crosses tiles, each tile writes its part to the workspace.
// runs       A block for each tile in which such an id begins adds those parts.
// Every team adds the same number of rows, however often one id occurs.
#pragma once

#include "cuda/device/vector.cuh"
#include "cuda/embedding_gather/ids.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kSegmentThreads = 256;  // at most
template <int Loads>
constexpr int kSegmentBatch = Loads > 4 ? 2 : 4;  // rows a thread has in flight
constexpr int kTileEntries = 1024;                // at most
constexpr int kRunThreads = 128;                  // at most

template <class Word>
constexpr Word kSkip = ~Word{1};  // no position and no key has this value

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
  acc_t<T>* heads;  // (tiles, pitch): the part of an id that began before the tile
  acc_t<T>* tails;  // and of an id that begins in the tile and continues after it
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
  // The neighbors, loaded before the rest, so that nothing waits for them.
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
  bool began_before = key[begin - 1] == key[begin];  // of the current id
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

  // Adds the sums of `id` of the teams after `last` to `sum`. Returns whether the id continues
  // after the tile.
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

// An id that begins in one tile and ends in another: adds the tail of the first, then the heads of
// the others in order, in a fixed number of parts.
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
  // The number of tiles after this one that begin with the id: doubled until too large, then by
  // bisection.
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

}  // namespace
}  // namespace mlpkern::cuda
