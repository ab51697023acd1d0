// Every tiling of linear_tanh's products on a product of two tiles that overhang C, because
// the launcher chooses the large ones only for shapes that are slow to emulate.
#include <cmath>
#include <type_traits>
#include <vector>

#include "cuda/linear_tanh/tilings.cuh"
#include "ops/sums.h"
#include "orders.h"
#include "testing.h"

using namespace mlpkern;
using namespace mlpkern::testing;
using cuda::Kind;

namespace {

template <class T>
constexpr DType kDType = std::is_same_v<T, cuda::bf16>  ? DType::bf16
                         : std::is_same_v<T, cuda::f16> ? DType::f16
                                                        : DType::f32;

template <class T>
struct Rows {
  static constexpr int64_t kAlign = 16 / sizeof(T);

  // Values begin one element past a multiple of 16 bytes.
  Rows(int64_t rows, int64_t cols)
      : stride((cols + kAlign - 1) / kAlign * kAlign),
        values(kDType<T>, kAlign - 1 + rows * stride) {
    values.randomize(0.99);
    doubles = values.doubles();
  }
  cuda::Matrix<T> matrix() {
    return {static_cast<const T*>(values.data()) + kAlign - 1, stride, 16};
  }
  double at(int64_t row, int64_t col) const { return doubles[kAlign - 1 + row * stride + col]; }

  int64_t stride;
  Values values;
  std::vector<double> doubles;
};

template <class Math, Kind kind, class Tile>
void check_tiling(const char* name) {
  using T = typename Math::type;
  constexpr bool kSlope = kind != Kind::forward, kPieces = kind == Kind::dweight;
  const int64_t rows = Tile::kRows + 5, cols = Tile::kCols - 1;
  const int64_t depth = Tile::kSlabBytes / static_cast<int64_t>(sizeof(T)) + 9;
  const bool across_a = kind == Kind::dweight, across_b = kind != Kind::forward;
  Rows<T> a(across_a ? depth : rows, across_a ? rows : depth);
  Rows<T> y(across_a ? depth : rows, across_a ? rows : depth);
  Rows<T> b(across_b ? depth : cols, across_b ? cols : depth);
  Values output(kDType<T>, rows * cols), dbias(kDType<T>, kPieces ? rows : 0);
  std::vector<Sum> want(rows * cols), want_dbias(dbias.count);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < depth; ++d) {
      const auto i = across_a ? d : r, j = across_a ? r : d;
      const long double out = kSlope ? y.at(i, j) : 0, up = a.at(i, j);
      const long double value = (1 - out * out) * up, size = (1 + out * out) * std::fabs(up);
      if (kPieces) want_dbias[r].add(value, size);
      for (int64_t c = 0; c < cols; ++c) {
        const double factor = across_b ? b.at(d, c) : b.at(c, d);
        want[r * cols + c].add(value * factor, size * std::fabs(factor));
      }
    }
  if (kind == Kind::forward)
    for (Sum& sum : want) sum.value = std::tanh(sum.value);

  cuda::Product<T> p{};
  p.a = a.matrix(), p.y = y.matrix(), p.b = b.matrix();
  p.rows = rows, p.cols = cols, p.depth = p.piece_depth = depth, p.pieces = 1;
  p.output = static_cast<T*>(output.data());
  p.sum_bias = kPieces, p.dbias = static_cast<T*>(dbias.data());
  const double held = kSlope ? epsilon_of(kDType<T>) / epsilon_of(accumulator_of(kDType<T>)) : 0;
  const double rounding = std::is_same_v<Math, cuda::Tf32> ? 0x1p13 : 0;
  const double tanh_slack = std::is_same_v<T, cuda::bf16> ? 0x1p12 : 4;
  run_in_every_order(
      format("%s %s", name, name_of(kDType<T>)), {&output.buffer, &dbias.buffer},
      [&] { return cuda::launch_product<Math, kind, Tile>(p, nullptr); },
      [&] {
        check_sums("C", output, want, held + rounding, kSlope ? 0 : tanh_slack);
        check_sums("dbias", dbias, want_dbias, held, 0);
      });
}

template <class Math, Kind kind>
void check_kind(const char* name) {
  using Of = cuda::Tilings<Math, kind>;
  check_tiling<Math, kind, typename Of::Wide>(name);
  if constexpr (!std::is_same_v<typename Of::Wide, typename Of::Square>)
    check_tiling<Math, kind, typename Of::Square>(name);
}

template <Kind kind>
void check_every_math(const char* name) {
  check_kind<cuda::Tf32, kind>(name);
  check_kind<cuda::Half<cuda::bf16>, kind>(name);
  if (quick()) return;
  check_kind<cuda::Split, kind>(name);
  check_kind<cuda::Half<cuda::f16>, kind>(name);
}

}  // namespace

TEST_CASE(forward_by_every_tiling) { check_every_math<Kind::forward>("forward"); }
TEST_CASE(dinput_by_every_tiling) { check_every_math<Kind::dinput>("dinput"); }
TEST_CASE(dweight_by_every_tiling) { check_every_math<Kind::dweight>("dweight"); }
