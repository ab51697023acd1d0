// Ids of any integer type: dispatch on the type, and reads of blocks of ids with a range check.
#pragma once

#include "cpu/vector/simd.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

template <class Body>
MLPKERN_INLINE int64_t for_index_type(IndexType type, const Body& body) {
  switch (type) {
    case IndexType::u8:
      return body(static_cast<const uint8_t*>(nullptr));
    case IndexType::i16:
      return body(static_cast<const int16_t*>(nullptr));
    case IndexType::i32:
      return body(static_cast<const int32_t*>(nullptr));
    default:
      return body(static_cast<const int64_t*>(nullptr));
  }
}

// Calls visit(i, t, id) for id = a.input[first + i, t], i < rows. Returns -1, or stops at the first
// id outside [0, a.V) and returns its flat position.
template <class Args, class Visit>
MLPKERN_INLINE int64_t visit_ids(const Args& a, int64_t first, int64_t rows, const Visit& visit) {
  return for_index_type(a.index_type, [&](auto* type) -> int64_t {
    const auto* input = static_cast<decltype(type)>(a.input) + first * a.input_row_stride;
    for (int64_t i = 0; i < rows; ++i, input += a.input_row_stride)
      for (int64_t t = 0; t < a.T; ++t) {
        const int64_t id = static_cast<int64_t>(input[t * a.input_col_stride]);
        if (!in_range(id, a.V)) return (first + i) * a.T + t;
        visit(i, t, id);
      }
    return -1;
  });
}

// to[i * T + t] = a.input[first + i, t] for i < rows; returns what visit_ids returns.
template <class Args>
int64_t read_ids(int64_t* to, const Args& a, int64_t first, int64_t rows) {
  return visit_ids(a, first, rows, [&](int64_t, int64_t, int64_t id) { *to++ = id; });
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
