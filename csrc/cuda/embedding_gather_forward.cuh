// The gather of embedding_gather: output[n, t*D + d] = weight[input[n, t], d].
//
// The output is one flat run of bytes. A group is the fewest ids, or a few hundred, whose rows end
// on a 16-byte boundary; a block writes one chunk of a group, of about 32 KB. It first turns the
// ids of its group into addresses of table rows in shared memory, then every thread writes vectors
// of `Store` bytes, each put together from granules of `Granule` bytes that never straddle two
// rows: rows of 40 bytes are read 8 bytes at a time and written 16 at a time.
//
// A copy needs no dtype: the row of a bad id is filled with ones, which is NaN in every dtype.
#pragma once

#include "cuda/divisor.cuh"
#include "cuda/embedding_gather_ids.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace mlpkern::cuda {
namespace {

constexpr int kGatherThreads = 256;
constexpr int kGatherBatch = 4;           // vectors a thread has in flight
constexpr int kGroupIds = 512;            // at most, of a group
constexpr int64_t kChunkBytes = 1 << 15;  // at most, of a block
constexpr int64_t kLeastChunkBytes = 1 << 12;
constexpr int64_t kGatherBlocks = 1 << 10;     // smaller chunks rather than fewer blocks
constexpr int64_t kStreamingBytes = 32 << 20;  // an output beyond this would only wipe the cache
constexpr int64_t kLongRow = 1 << 27;  // granules: eight such rows are what a Divisor can take

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

// Granule number `at` of the group's output, or ones where its id is bad.
template <int Granule>
__device__ __forceinline__ gather_word_t<Granule> read_granule(const Gather& g,
                                                               const int64_t* row_of, int64_t at) {
  const int64_t granules = g.row_bytes / Granule;
  int64_t row, column;
  if (granules < kLongRow) {
    row = divide(static_cast<uint32_t>(at), g.granules);
    column =
        static_cast<uint32_t>(at) - static_cast<uint32_t>(row) * static_cast<uint32_t>(granules);
  } else {
    row = 0;
    for (column = at; column >= granules; column -= granules) ++row;
  }
  gather_word_t<Granule> word;
  memset(&word, 0xff, sizeof word);
  if (row_of[row] >= 0)
    word = __ldg(
        reinterpret_cast<const gather_word_t<Granule>*>(g.weight + row_of[row] + column * Granule));
  return word;
}

template <class Index, int Granule, int Store>
__global__ void __launch_bounds__(kGatherThreads) embedding_gather_forward_kernel(const Gather g) {
  constexpr int kGranules = Store / Granule;
  __shared__ int64_t row_of[kGroupIds];  // byte offset in weight, -1 for a bad id
  const int64_t group = blockIdx.x / g.chunks, chunk = blockIdx.x % g.chunks;
  const int64_t first = group * g.group_ids;
  const int ids = static_cast<int>(g.count - first < g.group_ids ? g.count - first : g.group_ids);
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
  const int64_t vectors = end / Store;
  for (int64_t x = begin / Store + threadIdx.x; x < vectors; x += kGatherBatch * kGatherThreads) {
    gather_word_t<Store> vector[kGatherBatch];
#pragma unroll
    for (int u = 0; u < kGatherBatch; ++u) {
      if (x + u * kGatherThreads >= vectors) break;
      gather_word_t<Granule> granule[kGranules];
#pragma unroll
      for (int k = 0; k < kGranules; ++k)
        granule[k] = read_granule<Granule>(g, row_of, (x + u * kGatherThreads) * kGranules + k);
      memcpy(&vector[u], granule, Store);
    }
#pragma unroll
    for (int u = 0; u < kGatherBatch; ++u) {
      if (x + u * kGatherThreads >= vectors) break;
      auto* to = reinterpret_cast<gather_word_t<Store>*>(output) + x + u * kGatherThreads;
      if (g.streaming)
        __stcs(to, vector[u]);
      else
        *to = vector[u];
    }
  }
  if constexpr (kGranules > 1) {  // what the last chunk has beyond its last whole vector
    const int64_t at = vectors * kGranules + threadIdx.x;
    if (at < end / Granule)
      reinterpret_cast<gather_word_t<Granule>*>(output)[at] = read_granule<Granule>(g, row_of, at);
  }
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
      dim3(static_cast<unsigned>(blocks)), dim3(kGatherThreads), 0, stream, g);
}

}  // namespace
}  // namespace mlpkern::cuda
