// linear_tanh: the tilings of its products, Tiling<rows, cols, warps_m, warps_n, slab bytes,
// stages, blocks>.
//
//   Small   for few rows and for shapes that larger tiles would overhang; fits every device
//   Wide    the 200 columns of a usual layer in one tile, so that the rows are read once
//   Square  for 16-bit products of many columns, which are bound by their reads of shared memory
#pragma once

#include <type_traits>

#include "cuda/linear_tanh/product.cuh"

namespace mlpkern::cuda {

// Slabs of 128 bytes where three stages fit on sm_80, sm_90 and sm_100. Products that form dz need
// two tiles per slab: four stages of half the size.
template <Kind kind>
constexpr int kWideSlab = kind == Kind::forward ? 128 : 64;
template <Kind kind>
constexpr int kWideStages = kind == Kind::forward ? 3 : 4;

template <class Math, Kind kind>
struct Tilings {
  using Small = Tiling<64, 64, 2, 2, 128, 3, kind == Kind::forward ? 3 : 2>;
  using Wide = Tiling<128, 208, 4, 2, kWideSlab<kind>, kWideStages<kind>, 1>;
  using Square =
      std::conditional_t<sizeof(typename Math::type) == 2, Tiling<128, 256, 2, 4, 64, 4, 1>, Wide>;
};

// A warp of Split holds its tile twice and multiplies three times as much, so its tiles are
// smaller.
template <Kind kind>
struct Tilings<Split, kind> {
  using Small = Tiling<64, 64, 2, 2, 128, 3, kind == Kind::forward ? 3 : 2>;
  using Wide = Tiling<64, 200, 2, 5, kWideSlab<kind>, kWideStages<kind>, 1>;
  using Square = Wide;
};

}  // namespace mlpkern::cuda
