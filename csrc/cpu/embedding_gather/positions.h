// The positions of a batch of ids, in order, and the sizes that forward and backward share.
#pragma once

#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kSerialBytes = 1 << 17;  // below this a parallel region costs more than it saves
constexpr int64_t kPieceIds = 8192;        // ids of one piece of the batch

int64_t element_size(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }

// Calls visit(position, row, column, id) for the positions [begin, end) of an (N, T) array of ids,
// until it returns false. Divides once per range, not once per id.
template <class Index, class Args, class Visit>
MLPKERN_INLINE void for_ids(const Args& a, int64_t begin, int64_t end, const Visit& visit) {
  const Index* input = static_cast<const Index*>(a.input);
  int64_t n = begin / a.T, t = begin - n * a.T;
  const Index* id = input + n * a.input_row_stride + t * a.input_col_stride;
  for (int64_t i = begin; i < end; ++i) {
    if (!visit(i, n, t, static_cast<int64_t>(*id))) return;
    if (++t == a.T) {
      t = 0;
      ++n;
      id = input + n * a.input_row_stride;
    } else {
      id += a.input_col_stride;
    }
  }
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
