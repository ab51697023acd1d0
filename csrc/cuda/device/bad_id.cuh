// Ids and targets out of range on a device: no assert, which would end the context, and no wait.
// One is recorded in device memory, and mlpkern.check_errors() raises it later.
//
// A file of kernels that reads ids has a record of its own on each device:
//
//   MLPKERN_BAD_IDS(embedding_gather)   // defines `bad_ids` and embedding_gather_take_bad_id()
//
// and its kernels call record_bad_id(&bad_ids, site, position, value).
#pragma once

#include <cuda_runtime.h>

#include "cuda/library.h"

namespace mlpkern::cuda {

// What a kernel must know to say which id was bad; passed by value, read only where one is.
struct IdSite {
  BadIdOp op;
  IdShape shape;
  int64_t bound, ignored;
};

struct BadIdRecord {
  unsigned long long claimed;  // 0: nothing recorded
  BadId bad;
};

// Of several bad ids the first to come stays; the record is read only after the kernel's end.
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
