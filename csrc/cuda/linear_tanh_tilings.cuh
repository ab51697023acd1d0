// linear_tanh: the tilings of its products, Tiling<rows, cols, warps_m, warps_n, slab bytes,
// stages, blocks>.
//
//   Small   few rows, and shapes that larger tiles would overhang; fits every device
//   Wide    the 200 columns of a usual layer in one tile, so that the rows are read once
//   Square  16-bit products of many columns, which are limited by what they read from shared memory
#pragma once

#include "cuda/linear_tanh_product.cuh"

namespace mlpkern::cuda {

template <class Math, Kind kind>
struct Tilings {
  using Small = Tiling<64, 64, 2, 2, 128, 3, 2>;
  using Wide = Tiling<128, 208, 4, 2, kind == Kind::forward ? 128 : 64, 3, 1>;
  using Square = Tiling<128, 256, 2, 4, 64, 3, 1>;
};

// A warp of Split holds its tile twice and multiplies three times as much.
template <Kind kind>
struct Tilings<Split, kind> {
  using Small = Tiling<64, 64, 2, 2, 128, 3, 2>;
  using Wide = Tiling<64, 200, 2, 5, kind == Kind::forward ? 128 : 64, 3, 1>;
  using Square = Wide;
};

// Four warps of 64 x 64 would not leave Tf32 registers for rounding and loads at once.
template <Kind kind>
struct Tilings<Tf32, kind> {
  using Small = Tiling<64, 64, 2, 2, 128, 3, 2>;
  using Wide = Tiling<128, 208, 4, 2, kind == Kind::forward ? 128 : 64, 3, 1>;
  using Square = Wide;
};

}  // namespace mlpkern::cuda
