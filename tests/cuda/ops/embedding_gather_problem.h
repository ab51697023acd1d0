// What the tests of embedding_gather of csrc/cuda share: a problem, its ids and arrays.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <string>

#include "cuda/library.h"
#include "orders.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

const DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
const IndexType kIndexTypes[] = {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64};

enum class Kind { uniform, one, zipf };

struct Problem {
  int64_t N, T, V, D;
  Kind kind = Kind::uniform;
  int64_t id_row = -1, id_col = 1;  // strides; -1: contiguous
  int64_t row = -1;                 // stride of doutput or of the table, in the backward or forward
  int64_t offset = 0;  // of every floating-point array from a 16-byte boundary, in elements
  int64_t padding_idx = -1;
};

std::string label(const char* what, DType dtype, IndexType type, const Problem& p) {
  return format(
      "%s %s %s N=%lld T=%lld V=%lld D=%lld kind=%d id strides %lld %lld row stride %lld offset "
      "%lld "
      "padding %lld",
      what, name_of(dtype), name_of(type), static_cast<long long>(p.N), static_cast<long long>(p.T),
      static_cast<long long>(p.V), static_cast<long long>(p.D), static_cast<int>(p.kind),
      static_cast<long long>(p.id_row), static_cast<long long>(p.id_col),
      static_cast<long long>(p.row), static_cast<long long>(p.offset),
      static_cast<long long>(p.padding_idx));
}

// An (N, T) array of ids with strides.
struct IdTable {
  IdTable(IndexType type, const Problem& p)
      : row(p.id_row < 0 ? p.T * p.id_col : p.id_row),
        col(p.id_col),
        N(p.N),
        T(p.T),
        ids(type, (p.N > 0 ? p.N - 1 : 0) * row + (p.T > 0 ? p.T - 1 : 0) * col + 1) {
    const int64_t largest = type == IndexType::u8 ? 255 : type == IndexType::i16 ? 32767 : p.V;
    const int64_t bound = p.V - 1 < largest ? p.V : largest + 1;
    ids.randomize(bound > 0 ? bound : 1);
    for (int64_t i = 0; i < ids.count && p.kind != Kind::uniform; ++i)
      ids.set(i, p.kind == Kind::one
                     ? bound / 2
                     : static_cast<int64_t>(std::pow(static_cast<double>(bound), uniform())) - 1);
  }
  int64_t get(int64_t n, int64_t t) const { return ids.get(n * row + t * col); }

  int64_t row, col, N, T;
  Ids ids;
};

template <class Args>
Args arguments(DType dtype, const Problem& p, IdTable& input) {
  Args args{};
  args.dtype = dtype;
  args.index_type = input.ids.type;
  args.N = p.N, args.T = p.T, args.V = p.V, args.D = p.D;
  args.input = input.ids.data();
  args.input_row_stride = input.row, args.input_col_stride = input.col;
  args.input_shape = {2, {p.N, p.T}};
  return args;
}

// The offset of the array in its buffer, which begins one element past a boundary.
int64_t lead_of(DType dtype, const Problem& p) {
  return 16 / static_cast<int64_t>(item_size(dtype)) - 1 + p.offset;
}

char* at(Values& values, int64_t offset) {
  return static_cast<char*>(values.data()) + offset * item_size(values.dtype);
}

// Checks that the kernel has written nothing before its output.
void check_untouched(const Values& values, int64_t offset) {
  for (int64_t i = 0; i < offset; ++i)
    CHECK(std::isnan(values.get(i)), "element %lld before the output was written",
          static_cast<long long>(i));
}

}  // namespace
