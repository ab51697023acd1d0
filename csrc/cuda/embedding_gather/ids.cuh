// How the kernels of embedding_gather read ids: positions of an (N, T) array with any strides, and
// the record of an id out of range, which is why only embedding_gather.cu may include this.
#pragma once

#include "cuda/device/bad_id.cuh"
#include "cuda/device/dtype.cuh"

namespace mlpkern::cuda {

MLPKERN_BAD_IDS(embedding_gather)

namespace {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int64_t clamp(int64_t x, int64_t low, int64_t high) {
  return x > high ? (high > low ? high : low) : x < low ? low : x;
}

// a / b for a >= 0, b > 0. By shifts where 64 bits are needed: this is rare, and the compiler's
// 64-bit division is a call, which costs the kernel registers.
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  if ((static_cast<uint64_t>(a | b) >> 32) == 0)
    return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  int64_t step = b, bit = 1, result = 0;
  for (; step <= a >> 1; step <<= 1) bit <<= 1;
  for (; bit > 0; bit >>= 1, step >>= 1) {
    if (a < step) continue;
    a -= step;
    result += bit;
  }
  return result;
}

// The offset of position i = n*T + t of an (N, T) array, in elements.
struct Positions {
  int64_t T, row_stride, col_stride;
  bool even;  // neighbors are col_stride apart everywhere: no division needed
};

inline Positions positions_of(int64_t N, int64_t T, int64_t row_stride, int64_t col_stride) {
  if (T == 1) return {1, row_stride, row_stride, true};
  return {T, row_stride, col_stride, N <= 1 || row_stride == T * col_stride};
}

__device__ __forceinline__ int64_t offset_of(const Positions& p, int64_t i) {
  if (p.even) return i * p.col_stride;
  const int64_t n = quotient(i, p.T);
  return n * p.row_stride + (i - n * p.T) * p.col_stride;
}

struct IdArray {
  const void* data;
  Positions positions;
  int64_t V;
  IdSite site;
};

template <class Args>
IdArray ids_of(const Args& a) {
  return {a.input,
          positions_of(a.N, a.T, a.input_row_stride, a.input_col_stride),
          a.V,
          {BadIdOp::embedding_gather, a.input_shape, a.V, -1}};
}

template <class Index>
__device__ __forceinline__ int64_t id_at(const IdArray& ids, int64_t i) {
  return static_cast<const Index*>(ids.data)[offset_of(ids.positions, i)];
}

__device__ __forceinline__ bool in_range(int64_t id, int64_t V) {
  return static_cast<uint64_t>(id) < static_cast<uint64_t>(V);
}

}  // namespace
}  // namespace mlpkern::cuda
