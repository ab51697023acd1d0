#include "binding/id_range.h"

namespace mlpkern {
namespace {

// Adjacent values, a chunk at a time: the test of a chunk has no branch, so the compiler vectorizes
// it.
template <class T>
int64_t first_in_row(const T* x, int64_t count, int64_t stride, uint64_t limit) {
  constexpr int64_t kChunk = 1024;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = begin + kChunk < count ? begin + kChunk : count;
    bool outside = false;
    if (stride == 1)
      for (int64_t i = begin; i < end; ++i) outside |= static_cast<uint64_t>(x[i]) >= limit;
    else
      for (int64_t i = begin; i < end; ++i)
        outside |= static_cast<uint64_t>(x[i * stride]) >= limit;
    if (!outside) continue;
    for (int64_t i = begin; i < end; ++i)
      if (static_cast<uint64_t>(x[i * stride]) >= limit) return i;
  }
  return -1;
}

template <class T>
int64_t first(const T* x, const int64_t (&sizes)[3], const int64_t (&strides)[3], int64_t limit) {
  for (int64_t i = 0; i < sizes[0]; ++i)
    for (int64_t j = 0; j < sizes[1]; ++j) {
      const T* row = x + i * strides[0] + j * strides[1];
      const int64_t k = first_in_row(row, sizes[2], strides[2], static_cast<uint64_t>(limit));
      if (k >= 0) return (i * sizes[1] + j) * sizes[2] + k;
    }
  return -1;
}

}  // namespace

int64_t read_id(IndexType type, const void* data, int64_t offset) {
  switch (type) {
    case IndexType::u8:
      return static_cast<const uint8_t*>(data)[offset];
    case IndexType::i16:
      return static_cast<const int16_t*>(data)[offset];
    case IndexType::i32:
      return static_cast<const int32_t*>(data)[offset];
    default:
      return static_cast<const int64_t*>(data)[offset];
  }
}

int64_t first_out_of_range(IndexType type, const void* data, const int64_t (&sizes)[3],
                           const int64_t (&strides)[3], int64_t limit) {
  switch (type) {
    case IndexType::u8:
      return first(static_cast<const uint8_t*>(data), sizes, strides, limit);
    case IndexType::i16:
      return first(static_cast<const int16_t*>(data), sizes, strides, limit);
    case IndexType::i32:
      return first(static_cast<const int32_t*>(data), sizes, strides, limit);
    default:
      return first(static_cast<const int64_t*>(data), sizes, strides, limit);
  }
}

}  // namespace mlpkern
