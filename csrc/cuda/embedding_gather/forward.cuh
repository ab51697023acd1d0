// The gather of embedding_gather: output[n, t*D + d] = weight[input[n, t], d].
//
// The output is one flat run of bytes. A group is the fewest ids, or a few hundred, whose rows end
// on a 16-byte boundary; a block writes one chunk of a group, of about 32 KB. It first turns the
// ids of its group into addresses of table rows in shared memory. Then every thread writes vectors
// of `Store` bytes, assembled from granules of `Granule` bytes that never straddle two rows: rows
// of 40 bytes are read 8 bytes at a time and written 16 at a time.
//
// A copy needs no dtype: the row of a bad id is filled with one bits, which is NaN in every dtype.
#pragma once

#include "cuda/device/divisor.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/vector.cuh"
#include "cuda/embedding_gather/ids.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kGatherThreads = 256;
constexpr int kGatherBatch = 4;           // vectors a thread has in flight
constexpr int kGroupIds = 512;            // at most, of a group
constexpr int64_t kChunkBytes = 1 << 15;  // at most, of a block
constexpr int64_t kLeastChunkBytes = 1 << 12;
constexpr int64_t kGatherBlocks = 1 << 10;     // smaller chunks rather than fewer blocks
constexpr int64_t kStreamingBytes = 32 << 20;  // a larger output bypasses the cache
constexpr int64_t kLongRow =
    1 << 25;  // granules: a group of eight such rows has less than 2^32 bytes

struct Gather {
  IdArray ids;
  const char* weight;
  char* output;
  int64_t weight_row_bytes;  // from row to row
  int64_t row_bytes;         // of D elements
  int64_t count;             // ids
  unsigned chunks;           // of a group
  int64_t chunk_bytes;
  int group_ids;
  bool streaming;
  Divisor granules;  // of a row
};

template <int Bytes>
using gather_word_t = typename WordOf<Bytes>::type;

// Granules [at, at + Granules) of the group's output as one vector. Ones where an id is bad.
// Count: of granules in a group, 32 bits but for the longest rows.
template <int Granule, int Granules, class Count>
__device__ __forceinline__ gather_word_t<Granule * Granules> read_granules(const Gather& g,
                                                                           const int64_t* row_of,
                                                                           Count at) {
  const Count granules = static_cast<Count>(g.row_bytes / Granule);
  Count row = 0, column = at;
  if constexpr (sizeof(Count) == 4) {
    row = divide(at, g.granules);
    column -= row * granules;
  } else {
    for (; column >= granules; column -= granules) ++row;
  }
  gather_word_t<Granule> word[Granules];
#pragma unroll
  for (int k = 0; k < Granules; ++k) {
    const int64_t from = row_of[row];
    memset(&word[k], 0xff, Granule);
    if (from >= 0)
      word[k] = __ldg(reinterpret_cast<const gather_word_t<Granule>*>(g.weight + from) + column);
    if (++column == granules) column = 0, ++row;
  }
  gather_word_t<Granule * Granules> vector;
  memcpy(&vector, word, sizeof vector);
  return vector;
}

// Bytes [begin, end) of the group's output. `begin` is on a boundary of Store bytes.
template <int Granule, int Store, class Count>
__device__ __forceinline__ void write_chunk(const Gather& g, const int64_t* row_of, char* output,
                                            Count begin, Count end) {
  constexpr Count kGranules = Store / Granule;
  auto* const to = reinterpret_cast<gather_word_t<Store>*>(output);
  const auto write = [&](Count x, gather_word_t<Store> vector) {
    if (g.streaming)
      __stcs(to + x, vector);
    else
      to[x] = vector;
  };
  const Count vectors = end / Store;
  Count x = begin / Store + threadIdx.x;
  for (; x + (kGatherBatch - 1) * kGatherThreads < vectors; x += kGatherBatch * kGatherThreads) {
    gather_word_t<Store> vector[kGatherBatch];
#pragma unroll
    for (int u = 0; u < kGatherBatch; ++u)
      vector[u] = read_granules<Granule, kGranules>(
          g, row_of, static_cast<Count>(x + u * kGatherThreads) * kGranules);
#pragma unroll
    for (int u = 0; u < kGatherBatch; ++u) write(x + u * kGatherThreads, vector[u]);
  }
#pragma unroll 1
  for (; x < vectors; x += kGatherThreads)
    write(x, read_granules<Granule, kGranules>(g, row_of, x * kGranules));
  if constexpr (kGranules > 1) {  // the rest of the last chunk after its last whole vector
    const Count at = vectors * kGranules + threadIdx.x;
    if (at < end / Granule)
      reinterpret_cast<gather_word_t<Granule>*>(output)[at] =
          read_granules<Granule, 1>(g, row_of, at);
  }
}

template <class Index, int Granule, int Store>
__global__ void __launch_bounds__(kGatherThreads) embedding_gather_forward_kernel(const Gather g) {
  __shared__ int64_t row_of[kGroupIds];  // byte offset in weight, -1 for a bad id
  const int64_t group = blockIdx.x / g.chunks, chunk = blockIdx.x % g.chunks;
  const int64_t first = group * g.group_ids;
  const int ids = static_cast<int>(g.count - first < g.group_ids ? g.count - first : g.group_ids);
#pragma unroll 1
  for (int j = threadIdx.x; j < ids; j += kGatherThreads) {
    const int64_t id = id_at<Index>(g.ids, first + j);
    const bool good = in_range(id, g.ids.V);
    row_of[j] = good ? id * g.weight_row_bytes : -1;
    if (!good && chunk == 0) record_bad_id(&bad_ids, g.ids.site, first + j, id);
  }
  __syncthreads();

  const int64_t bytes = ids * g.row_bytes;
  const int64_t begin = chunk * g.chunk_bytes;
  const int64_t end = bytes < begin + g.chunk_bytes ? bytes : begin + g.chunk_bytes;
  if (begin >= end) return;  // the last group may be shorter
  char* output = g.output + first * g.row_bytes;
  if (g.row_bytes / Granule < kLongRow)
    write_chunk<Granule, Store>(g, row_of, output, static_cast<uint32_t>(begin),
                                static_cast<uint32_t>(end));
  else
    write_chunk<Granule, Store>(g, row_of, output, begin, end);
}

template <class Index, int Granule, int Store>
int launch_gather(Gather g, void* stream) {
  const int64_t total = g.count * g.row_bytes;
  // Rows of a group end on a boundary of Store bytes.
  const int64_t least = Store / Granule;
  const int64_t want = round_up(clamp(total / kGatherBlocks, kLeastChunkBytes, kChunkBytes), 16);
  g.group_ids = static_cast<int>(clamp(want / g.row_bytes / least * least, least, kGroupIds));
  g.chunk_bytes = want;
  const int64_t group_bytes = g.group_ids * g.row_bytes;
  if (group_bytes <= 2 * want) g.chunk_bytes = round_up(group_bytes, 16);
  g.chunks = static_cast<unsigned>(ceil_div(group_bytes, g.chunk_bytes));
  g.streaming = total > kStreamingBytes;
  const int64_t granules = g.row_bytes / Granule;
  g.granules = granules < kLongRow ? divisor_of(static_cast<uint32_t>(granules)) : Divisor{};
  const int64_t blocks = ceil_div(g.count, g.group_ids) * g.chunks;
  return launch<embedding_gather_forward_kernel<Index, Granule, Store>>(
      blocks, dim3(kGatherThreads), 0, stream, g);
}

}  // namespace
}  // namespace mlpkern::cuda
