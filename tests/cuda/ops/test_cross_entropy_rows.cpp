// The kernel that sums the targets of rows in pieces, with more than one unit per team in a block:
// the launcher does this only for more pieces than a grid may have blocks.
#include <algorithm>
#include <cmath>

#include "cuda/cross_entropy/rows_backward.cuh"
#include "cuda/device/launch.cuh"
#include "orders.h"

using namespace mlpkern;
using namespace mlpkern::testing;

namespace {

// Rows of `pieces` pieces; blocks take `units_per_block` units, the last of them fewer.
void masses_equal_the_formula(int64_t N, const cuda::RowPlan& plan) {
  const int64_t C = plan.piece * plan.pieces - 5;  // the last piece of a row is shorter
  Values target(DType::f64, N * C), masses(DType::f64, plan.units);
  target.randomize(1);
  CrossEntropyBackward args{};
  args.dtype = DType::f64;
  args.target_is_probability = true;
  args.N = N, args.C = C;
  args.target = target.data(), args.target_row_stride = C;
  args.label_smoothing = 0.25;
  const auto blocks =
      static_cast<unsigned>((plan.units + plan.units_per_block - 1) / plan.units_per_block);
  const auto threads = static_cast<unsigned>(plan.team_warps * cuda::kWarp * plan.teams);

  run_in_every_order(
      format("masses of %d warps a team, %d units a block", plan.team_warps, plan.units_per_block),
      {&masses.buffer},
      [&] {
        return cuda::launch<cuda::cross_entropy_mass_kernel<double>>(
            blocks, dim3(threads), 0, nullptr, args, cuda::Options<double>(args), plan,
            static_cast<double*>(masses.data()));
      },
      [&] {
        for (int64_t unit = 0; unit < plan.units; ++unit) {
          const int64_t n = unit / plan.pieces, first = unit % plan.pieces * plan.piece;
          const int64_t last = std::min<int64_t>(first + plan.piece, C);
          long double want = 0, size = 0;
          for (int64_t c = first; c < last; ++c) {
            const long double q = 0.75L * target.get(n * C + c) + 0.25L / C;
            want += q, size += std::fabs(q);
          }
          CHECK(std::fabs(masses.get(unit) - want) <= 16 * epsilon_of(DType::f64) * size,
                "mass of unit %lld is %.17g, want %.17Lg", static_cast<long long>(unit),
                masses.get(unit), want);
        }
      });
}

}  // namespace

TEST_CASE(masses_of_units_in_several_rounds) {
  masses_equal_the_formula(3, {/*team_warps=*/8, /*teams=*/1, /*piece=*/512, /*pieces=*/3,
                               /*units_per_block=*/4, /*units=*/9});
  masses_equal_the_formula(5, {/*team_warps=*/1, /*teams=*/8, /*piece=*/128, /*pieces=*/2,
                               /*units_per_block=*/16, /*units=*/10});
}
