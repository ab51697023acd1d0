// The forward of embedding_gather: a task takes a piece of the batch and copies the row of each id
// by overlapping moves, so that any D costs a few instructions and nothing beyond the row is read
// or written.
#pragma once

#include "cpu/embedding_gather/positions.h"
#include "cpu/threads/parallel.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

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

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
