// linear_tanh: how a tile of a row-major matrix comes to shared memory.
//
// A tile keeps the orientation of its matrix: `rows` rows of `cols` elements, padded so that eight
// rows of 16 bytes meet no bank twice. It is cut into chunks of 16 bytes, chunk i belonging to
// thread i % threads: that thread starts the copy, and may change the chunk once its own copies
// have arrived, before the barrier that shows it to the others. What lies outside the matrix
// becomes 0.
#pragma once

#include "cuda/dtype.cuh"
#include "cuda/ptx.cuh"
#include "cuda/vector.cuh"

namespace mlpkern::cuda {

// A matrix in global memory, the elements of a row adjacent. `copy_bytes` is the widest copy
// (16, 8, 4 or 2 bytes) that data and row stride allow.
template <class T>
struct Matrix {
  const T* data;  // readable even if the matrix is empty
  int64_t stride;
  int copy_bytes;
};

// The part of a matrix that a tile covers: from (row, col), but not beyond the ends.
struct Window {
  int64_t row, row_end, col, col_end;
};

template <class T>
constexpr int kChunk = kVectorItems<T>;  // elements of 16 bytes

template <class T, int rows, int cols, int pad_bytes>
struct TileShape {
  static constexpr int kRows = rows, kCols = cols;
  static constexpr int kStride = cols + pad_bytes / static_cast<int>(sizeof(T));
  static constexpr int kElements = rows * kStride;
  static constexpr int kRowChunks = cols / kChunk<T>, kChunks = rows * kRowChunks;
  static_assert(cols % kChunk<T> == 0 && pad_bytes % 16 == 0);
};

// Fills one chunk with the first `count` elements from `from`, piece by piece.
template <int bytes, class T>
__device__ __forceinline__ void copy_chunk(T* to, const T* from, int count) {
  if constexpr (bytes >= 4) {
    const int valid = count * static_cast<int>(sizeof(T));
#pragma unroll
    for (int at = 0; at < 16; at += bytes) {
      const int here = min(max(valid - at, 0), bytes);
      const char* source = reinterpret_cast<const char*>(from);
      cp_async<bytes>(reinterpret_cast<char*>(to) + at, here > 0 ? source + at : source, here);
    }
  } else {
    for (int i = 0; i < kChunk<T>; ++i) to[i] = i < count ? from[i] : from_acc<T>(0.0f);
  }
}

template <int bytes, class Shape, int threads, class T>
__device__ __forceinline__ void copy_tile_by(T* tile, const Matrix<T>& m, const Window& w) {
  constexpr int kUnroll = bytes == 16 ? 16 : 1;  // the narrow paths need not be fast
#pragma unroll kUnroll
  for (int first = 0; first < Shape::kChunks; first += threads) {
    const int i = first + static_cast<int>(threadIdx.x);
    if (Shape::kChunks % threads != 0 && i >= Shape::kChunks) break;
    const int row = i / Shape::kRowChunks, col = i % Shape::kRowChunks * kChunk<T>;
    const int64_t left = w.row + row < w.row_end ? w.col_end - (w.col + col) : 0;
    const int count = left < 0 ? 0 : left < kChunk<T> ? static_cast<int>(left) : kChunk<T>;
    const T* from = m.data;  // copies of nothing need an address to the width's multiple, too
    if (count > 0) from += (w.row + row) * m.stride + w.col + col;
    copy_chunk<bytes>(tile + row * Shape::kStride + col, from, count);
  }
}

// Starts the copies of a tile; they join the group that the thread commits next.
template <class Shape, int threads, class T>
__device__ __forceinline__ void copy_tile(T* tile, const Matrix<T>& m, const Window& w) {
  if (m.copy_bytes == 16)
    copy_tile_by<16, Shape, threads>(tile, m, w);
  else if (m.copy_bytes == 8)
    copy_tile_by<8, Shape, threads>(tile, m, w);
  else if (sizeof(T) == 4 || m.copy_bytes == 4)
    copy_tile_by<4, Shape, threads>(tile, m, w);
  else
    copy_tile_by<sizeof(T), Shape, threads>(tile, m, w);
}

// Replaces the thread's chunks of dy by dz = (1 - y^2) dy. sums[j] += element j of each chunk, in
// order of the rows: column sums where the thread's chunks share their columns.
template <class Shape, int threads, class T>
__device__ __forceinline__ void form_dz(T* dy, const T* y, acc_t<T> (&sums)[kChunk<T>]) {
#pragma unroll
  for (int first = 0; first < Shape::kChunks; first += threads) {
    const int i = first + static_cast<int>(threadIdx.x);
    if (Shape::kChunks % threads != 0 && i >= Shape::kChunks) break;
    const int at = i / Shape::kRowChunks * Shape::kStride + i % Shape::kRowChunks * kChunk<T>;
    acc_t<T> up[kChunk<T>], out[kChunk<T>];
    unpack(load_vector<kChunk<T>>(dy + at), up);
    unpack(load_vector<kChunk<T>>(y + at), out);
#pragma unroll
    for (int j = 0; j < kChunk<T>; ++j) {
      up[j] *= fmaf(-out[j], out[j], 1.0f);
      sums[j] += up[j];
    }
    store_vector(dy + at, pack<T>(up));
  }
}

}  // namespace mlpkern::cuda
