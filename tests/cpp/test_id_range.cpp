// The search for ids out of range: every type and stride, the first of several, the extremes.
#include "binding/id_range.h"

#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

constexpr IndexType kTypes[] = {IndexType::u8, IndexType::i16, IndexType::i32, IndexType::i64};

// An array of ids in [0, limit), with -1 (255) between them.
struct Grid {
  int64_t sizes[3], strides[3];
  Ids ids;

  Grid(IndexType type, int64_t a, int64_t b, int64_t c, int64_t stride, int64_t limit)
      : sizes{a, b, c},
        strides{b * (c * stride + 2) + 1, c * stride + 2, stride},
        ids(type, a * (b * (c * stride + 2) + 1)) {
    for (int64_t flat = 0; flat < a * b * c; ++flat)
      ids.set(offset(flat), static_cast<int64_t>(uniform() * limit));
  }
  int64_t offset(int64_t flat) const {
    return flat / (sizes[1] * sizes[2]) * strides[0] + flat / sizes[2] % sizes[1] * strides[1] +
           flat % sizes[2] * strides[2];
  }
  int64_t count() const { return sizes[0] * sizes[1] * sizes[2]; }
  int64_t search(int64_t limit) {
    return first_out_of_range(ids.type, ids.data(), sizes, strides, limit);
  }
};

void check_position(Grid& grid, int64_t limit, int64_t want) {
  const int64_t got = grid.search(limit);
  CHECK(got == want, "%s, limit %lld: found %lld, want %lld", name_of(grid.ids.type),
        static_cast<long long>(limit), static_cast<long long>(got), static_cast<long long>(want));
}

}  // namespace

TEST_CASE(values_are_read_as_their_type) {
  for (IndexType type : kTypes) {
    Ids ids(type, 3);
    const int64_t most = type == IndexType::u8    ? 255
                         : type == IndexType::i16 ? INT16_MAX
                         : type == IndexType::i32 ? INT32_MAX
                                                  : INT64_MAX;
    ids.set(1, most);
    ids.set(2, 7);
    CHECK(read_id(type, ids.data(), 0) == (type == IndexType::u8 ? 255 : -1), "all ones");
    CHECK(read_id(type, ids.data(), 1) == most, "the largest");
    CHECK(read_id(type, ids.data(), 2) == 7, "seven");
  }
}

TEST_CASE(the_first_offender_is_found) {
  constexpr int64_t kLimit = 100;
  for (IndexType type : kTypes)
    for (int64_t stride : {1, 3})
      for (int64_t length : {1, 5, 1024, 2500}) {  // within, at and past a chunk of the search
        Grid grid(type, 2, 3, length, stride, kLimit);
        check_position(grid, kLimit, -1);
        const int64_t last = grid.count() - 1;
        for (int64_t at : {last, last / 2 + 1, last / 2, int64_t{0}}) {  // earlier each time
          grid.ids.set(grid.offset(at), at % 2 || type == IndexType::u8 ? kLimit : -1);
          check_position(grid, kLimit, at);
        }
      }
}

TEST_CASE(the_ends_of_the_range) {
  for (IndexType type : {IndexType::i16, IndexType::i32, IndexType::i64})
    for (int64_t bad : {int64_t{-1}, int64_t{INT16_MIN}, int64_t{101}, int64_t{INT16_MAX}}) {
      Grid grid(type, 1, 1, 9, 1, 101);
      grid.ids.set(grid.offset(2), 100);
      check_position(grid, 101, -1);
      check_position(grid, 100, grid.ids.get(0) == 100 ? 0 : grid.ids.get(1) == 100 ? 1 : 2);
      grid.ids.set(grid.offset(5), bad);
      check_position(grid, 101, 5);
    }
  Grid wide(IndexType::i64, 1, 2, 4, 1, 10);
  for (int64_t bad : {INT64_MIN, INT64_MAX}) {
    wide.ids.set(wide.offset(6), bad);
    check_position(wide, INT64_MAX, 6);
  }
  Grid bytes(IndexType::u8, 1, 1, 300, 1, 256);
  check_position(bytes, 256, -1);
  check_position(bytes, INT64_MAX, -1);
}

TEST_CASE(empty_arrays_and_repeated_axes) {
  for (IndexType type : kTypes) {
    Grid grid(type, 2, 3, 4, 1, 50);
    for (int64_t axis : {0, 1, 2}) {
      Grid empty(type, 2, 3, 4, 1, 50);
      empty.sizes[axis] = 0;
      check_position(empty, 0, -1);
    }
    check_position(grid, 0, 0);  // no value is in an empty range
    grid.strides[0] = grid.strides[1] = 0;
    grid.ids.set(3, 50);
    check_position(grid, 50, 3);
  }
}
