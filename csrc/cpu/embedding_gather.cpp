// embedding_gather on a CPU: output[n, t*D + d] = weight[input[n, t], d] and its gradient (see
// kernels.h). The gradient of a small table goes by embedding_gather/small_table.h, that of a large
// one by embedding_gather/buckets.h.
//
// Compile alone:
// g++ -std=c++17 -O3 -Icsrc -DMLPKERN_ISA=avx2 -march=haswell -c csrc/cpu/embedding_gather.cpp
#include <cstring>
#include <type_traits>

#include "cpu/embedding_gather/buckets.h"
#include "cpu/embedding_gather/forward.h"
#include "cpu/embedding_gather/small_table.h"
#include "cpu/vector/ids.h"

namespace mlpkern::cpu::MLPKERN_ISA {

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
