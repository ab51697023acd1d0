// Ids and targets out of range on a device: no assert, which would destroy the context, and no
// synchronization. The device records one of them, and mlpkern.check_errors() raises it later.
//
// A file of kernels that reads ids has its own record on each device:
//
//   MLPKERN_BAD_IDS(embedding_gather)   // defines `bad_ids` and embedding_gather_take_bad_id()
//
// and its kernels call record_bad_id(&bad_ids, site, position, value).
#pragma once

#include <cuda_runtime.h>

#include "cuda/library.h"

namespace mlpkern::cuda {

// What the record of a bad id needs; passed by value, read only for a bad id.
struct IdSite {
  BadIdOp op;
  IdShape shape;
  int64_t bound, ignored;
};

struct BadIdRecord {
  unsigned long long claimed;  // 0: nothing recorded
  BadId bad;
};

// The first of several bad ids stays; the host reads the record only after the end of the kernel.
__device__ inline void record_bad_id(BadIdRecord* record, const IdSite& site, int64_t position,
                                     int64_t value) {
  if (atomicCAS(&record->claimed, 0ull, 1ull) != 0ull) return;
  record->bad = {site.op, site.shape, position, value, site.bound, site.ignored};
}

#define MLPKERN_BAD_IDS(name)                                                  \
  static __device__ BadIdRecord bad_ids;                                       \
  cudaError_t name##_take_bad_id(BadId* bad) {                                 \
    BadIdRecord record;                                                        \
    cudaError_t error = cudaMemcpyFromSymbol(&record, bad_ids, sizeof record); \
    if (error != cudaSuccess || !record.claimed) return error;                 \
    *bad = record.bad;                                                         \
    record.claimed = 0;                                                        \
    return cudaMemcpyToSymbol(bad_ids, &record, sizeof record);                \
  }

}  // namespace mlpkern::cuda
