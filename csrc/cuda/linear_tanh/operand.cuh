// linear_tanh: the copy of a tile of a row-major matrix to shared memory.
//
// A tile keeps the orientation of its matrix: `rows` rows of `cols` elements, padded so that eight
// rows of 16 bytes meet no bank twice. Threads share the chunks of 16 bytes: a thread starts the
// copies of its chunks, and may change them once they have arrived, before the barrier that makes
// them visible to the others. Elements outside the matrix become 0.
//
// The chunks of a thread are in one column, so that only the row changes from one to the next: an
// addition, and a comparison where the tile may overhang the last row.
#pragma once

#include <type_traits>

#include "cuda/device/mma.cuh"
#include "cuda/device/vector.cuh"

namespace mlpkern::cuda {

// A matrix in global memory, the elements of a row adjacent. `copy_bytes` is the widest copy
// (16, 8, 4 or 2 bytes) that data and row stride allow; 16 only if a row stride has at most 32 bits
// in bytes.
template <class T>
struct Matrix {
  const T* data;  // readable even if the matrix is empty
  int64_t stride;
  int copy_bytes;
};

// The part of a matrix that a tile covers: from (row, col) on, but not beyond its ends.
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

// The chunks of a thread, kDown rows apart in one column. kAcross threads are side by side; those
// beyond the last column have no chunks.
template <class Shape, int threads, class T>
struct Chunks {
  static constexpr int kAcross = [] {
    int across = 1;
    while (across < Shape::kRowChunks) across *= 2;
    return across;
  }();
  static constexpr int kDown = threads / kAcross;
  static constexpr int kTurns = (Shape::kRows + kDown - 1) / kDown;
  static_assert(threads % kAcross == 0);

  int row = static_cast<int>(threadIdx.x) / kAcross;  // of the first
  int col = static_cast<int>(threadIdx.x) % kAcross * kChunk<T>;

  // body(rows below the first)
  template <int unroll, class Body>
  __device__ __forceinline__ void for_each(const Body& body) const {
    if (kAcross != Shape::kRowChunks && col >= Shape::kCols) return;
#pragma unroll unroll
    for (int turn = 0; turn < kTurns; ++turn)
      if (Shape::kRows % kDown == 0 || row + turn * kDown < Shape::kRows) body(turn * kDown);
  }
};

// Fills one chunk with the first `count` elements at `from`, a few bytes at a time.
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

// The part of a window inside the matrix, in rows and columns of the tile.
template <class Shape>
struct Inside {
  int rows, cols;
  __device__ __forceinline__ explicit Inside(const Window& w)
      : rows(clamped(w.row_end - w.row, Shape::kRows)),
        cols(clamped(w.col_end - w.col, Shape::kCols)) {}
  __device__ __forceinline__ static int clamped(int64_t left, int most) {
    return left < 0 ? 0 : left < most ? static_cast<int>(left) : most;
  }
};

template <int bytes, class Shape, int threads, class T>
__device__ __forceinline__ void copy_tile_by(T* tile, const Matrix<T>& m, const Window& w) {
  const Inside<Shape> inside(w);
  const Chunks<Shape, threads, T> chunks;
  T* const to = tile + chunks.row * Shape::kStride + chunks.col;
  // Addresses outside are never read; they must only be multiples of the width.
  const T* const from = m.data + (w.row + chunks.row) * m.stride + w.col + chunks.col;
  const int left = inside.cols - chunks.col;
  if constexpr (bytes == 16) {
    const auto row_bytes = static_cast<uint32_t>(m.stride * static_cast<int64_t>(sizeof(T)));
    const auto copy = [&](auto is_whole) {
      constexpr bool kWhole = decltype(is_whole)::value;
      const int valid = kWhole ? 16 : min(max(left, 0), kChunk<T>) * static_cast<int>(sizeof(T));
      const int rows = kWhole && left <= 0 ? 0 : inside.rows - chunks.row;
      chunks.template for_each<chunks.kTurns>([&](int row) {
        const char* source = reinterpret_cast<const char*>(from) + uint64_t{row_bytes} * row;
        cp_async<16>(to + row * Shape::kStride, source, row < rows ? valid : 0);
      });
    };
    // If every chunk is entirely inside or outside, the size of a copy is known.
    if (inside.cols % kChunk<T> == 0)
      copy(std::true_type{});
    else
      copy(std::false_type{});
  } else {  // need not be fast
    chunks.template for_each<1>([&](int row) {
      const int count = chunks.row + row < inside.rows ? min(max(left, 0), kChunk<T>) : 0;
      copy_chunk<bytes>(to + row * Shape::kStride, count > 0 ? from + row * m.stride : m.data,
                        count);
    });
  }
}

// Starts the copies of a tile, in the group that the thread commits next.
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

// Replaces the thread's chunks of dy by dz = (1 - y^2) dy, rounded for the products of Math.
// sums[j] += element j of each chunk as it is, in order of the rows: column sums.
template <class Math, class Shape, int threads, class T>
__device__ __forceinline__ void form_dz(T* dy, const T* y, acc_t<T> (&sums)[kChunk<T>]) {
  const Chunks<Shape, threads, T> chunks;
  const int first = chunks.row * Shape::kStride + chunks.col;
  chunks.template for_each<chunks.kTurns>([&](int row) {
    const int at = first + row * Shape::kStride;
    acc_t<T> up[kChunk<T>], out[kChunk<T>];
    unpack(load_vector<kChunk<T>>(dy + at), up);
    unpack(load_vector<kChunk<T>>(y + at), out);
#pragma unroll
    for (int j = 0; j < kChunk<T>; ++j) {
      up[j] *= fmaf(-out[j], out[j], 1.0f);
      sums[j] += up[j];
      up[j] = Math::template rounded<Values::any>(up[j]);
    }
    store_vector(dy + at, pack<T>(up));
  });
}

}  // namespace mlpkern::cuda
