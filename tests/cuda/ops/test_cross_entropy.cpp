// cross_entropy of csrc/cuda against plain loops in long double: shapes that take each path and end
// one short of, at and one past each of its tiles, every option, every layout.
#include "cross_entropy_runs.h"

namespace {

Reduction reduction_of(int64_t number) { return kReductions[number % 3]; }

}  // namespace

// Tiles: each number of lanes a row, full, one short, one past; rows one short of, at and one past
// one tile, two tiles (one block) and three (several blocks and the finishing kernel).
TEST_CASE(narrow_rows_equal_the_formula) {
  int64_t number = 0;
  for (int64_t C : {1, 2, 7, 8, 9, 16, 17, 27, 31, 32, 33, 64, 65, 127, 128, 129, 200, 255, 256})
    for (DType dtype : kDTypes) {
      if (quick() && (C % 9 != 0 || dtype == DType::f16)) continue;
      Setting s{(number * 7) % 41 + 1, C};
      s.reduction = reduction_of(number++);
      s.x_at = s.out_at = number % 4;
      check(dtype, s);
    }
  for (int64_t N : {1, 63, 64, 65, 127, 128, 129, 255, 256, 257, 385}) {
    if (quick() && N % 64 != 1) continue;
    check(DType::f32, {N, 27});
    check(DType::bf16, {2 * N, 27});
  }
  check(DType::f64, {65, 27});
  check(DType::f32, {513, 1});
}

// A warp a row, then teams of 2, 4 and 8 warps: rows of one, whole and broken rounds of vectors.
TEST_CASE(wide_rows_equal_the_formula) {
  int64_t number = 0;
  for (int64_t C : {257, 258, 511, 512, 513, 1000, 1023, 1024, 1025, 2048, 2051, 4099, 8200, 12345})
    for (DType dtype : kDTypes) {
      if (quick() && (C != 513 && C != 4099)) continue;
      Setting s{C < 2000 ? 11 : 3, C};
      s.reduction = reduction_of(number++);
      s.x_at = s.out_at = number % 4;
      check(dtype, s);
    }
  check(DType::f32, {1, 1000});
  check(DType::f32, {65, 300});
}

// Rows above 4096 vectors, in 2 to 4 pieces.
TEST_CASE(pieces_of_long_rows_equal_the_formula) {
  const int64_t wide[][2] = {{3, 8193}, {2, 8200}, {9, 10001}, {1, 12290}};
  for (const auto& shape : wide)
    for (Reduction reduction : kReductions) {
      if (quick() && (shape[0] != 9 || reduction != Reduction::mean)) continue;
      Setting s{shape[0], shape[1]};
      s.reduction = reduction;
      s.x_at = s.out_at = 1;
      check(DType::f64, s);
      s.weighted = true;
      s.smoothing = 0.1;
      s.w_at = 1;
      check(DType::f64, s);
      s.probabilities = true;
      s.t_at = shape[0] % 2;
      check(DType::f64, s);
    }
  if (quick()) return;
  check(DType::f32, {3, 16390});
  check(DType::bf16, {2, 50257});
}

// Several tiles, and several rows, per block of many. In only one order, to save time.
TEST_CASE(more_rows_than_blocks) {
  if (quick()) return;
  fiber::set_order(fiber::Order::greedy_last, 1);
  for (const Setting& setting : {Setting{8192 * 256 + 3, 1}, Setting{8195, 520}}) {
    Problem problem(DType::f64, setting);
    set_context(label(DType::f64, setting));
    CHECK(problem.forward() == 0, "no launch may fail");
    problem.check_forward();
  }
}

TEST_CASE(every_option_equals_the_formula) {
  int64_t number = 0;
  for (DType dtype : kDTypes)
    for (Reduction reduction : kReductions)
      for (bool probabilities : {false, true})
        for (bool weighted : {false, true})
          for (double smoothing : {0.0, 0.1, 1.0})
            for (int64_t C : {27, 131, 300, 2100}) {
              if (quick() && (number++ % 7 != 0)) continue;
              if (C > 27 && static_cast<int>(reduction) != number++ % 3) continue;
              Setting s{C == 2100 ? 3 : 13, C};
              s.reduction = reduction;
              s.probabilities = probabilities;
              s.weighted = weighted;
              s.smoothing = smoothing;
              s.ignored_every = probabilities ? 0 : 5;
              check(dtype, s);
            }
}

// Every array at every distance from a 16-byte boundary; rows apart, overlapping, one row for all.
TEST_CASE(any_layout_equals_the_formula) {
  int64_t number = 0;
  for (DType dtype : kDTypes)
    for (int64_t C : {26, 27, 257, 264}) {
      for (int64_t at = 0; at < static_cast<int64_t>(16 / item_size(dtype)); ++at) {
        if (quick() && at != 1) continue;
        Setting s{7, C};
        s.reduction = reduction_of(number++);
        s.probabilities = number % 2;
        s.weighted = number % 3 != 0;
        s.smoothing = 0.1;
        s.x_at = at;
        s.t_at = number % 3;
        s.w_at = number % 5;
        s.out_at = number % 7 < 3 ? at : 1;
        check(dtype, s);
      }
      for (int64_t row : {C + 5, C + 8, C - 1, int64_t{0}}) {
        Setting s{7, C};
        s.row = row;
        s.target_row = number % 3;
        s.reduction = reduction_of(number++);
        s.x_at = number % 2;
        check(dtype, s);
        s.probabilities = true;
        s.target_row = row;
        check(dtype, s);
      }
    }
}
