// How the backward of linear_tanh cuts its work, and the scratch that this takes: pieces of the
// batch, in them blocks of rows, in them parts. All follow from the shape alone.
#pragma once

#include "cpu/threads/scratch.h"
#include "cpu/vector/gemm.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kBlockElements = 1 << 18;  // dz of one block
constexpr int64_t kPartElements = 1 << 16;   // dz of one part
constexpr int64_t kMaxPartRows = 128;
constexpr int64_t kPartialElements = 1 << 23;  // all pieces' dweight together

struct LinearTanhBackwardPlan {
  int64_t pieces, piece_rows, block_rows, part_rows;
  int64_t dz_stride, partial_stride;                    // elements
  int64_t packed_weight, partial_weight, partial_bias;  // elements, the last two of one piece
  int64_t dz, packed_dz, packed_input;                  // elements of one worker
  int64_t per_worker() const { return dz + packed_dz + packed_input; }
};

LinearTanhBackwardPlan plan(const LinearTanhBackward& a) {
  LinearTanhBackwardPlan p;
  const int64_t lanes = lanes_of(a.dtype);
  const int64_t padded_h = round_up(a.H > 0 ? a.H : 1, lanes);
  const int64_t padded_k = round_up(a.K > 0 ? a.K : 1, lanes);
  const int64_t widest = padded_h > padded_k ? padded_h : padded_k;
  p.block_rows = clamp(kBlockElements / widest, 64, kMaxBlockRows);
  const int64_t most = clamp(kPartialElements / (padded_h * padded_k), 1, 32);
  const bool serial = a.N * a.K * a.H < kSerialMultiplyAdds;
  p.pieces = serial ? 1 : clamp(ceil_div(a.N, 256), 1, most);
  p.piece_rows = ceil_div(a.N, p.pieces);
  p.part_rows = clamp(kPartElements / padded_h, 32, kMaxPartRows);
  // Each column panel of the input walks over all of dz. Several panels take a packed copy, since
  // every row of dz lies in another page; a single one takes each part as it is.
  const bool packs = padded_k > kTileVectors * lanes;
  if (!packs) p.block_rows = p.part_rows;
  if (p.block_rows > p.piece_rows) p.block_rows = p.piece_rows;
  if (p.part_rows > p.block_rows) p.part_rows = p.block_rows;
  p.dz_stride = (padded_h / lanes | 1) * lanes;  // as row_step_for
  p.partial_stride = (padded_k / lanes | 1) * lanes;
  p.packed_weight = round_up(padded_k * a.H + 64, 16);
  p.partial_weight = round_up(p.partial_stride * a.H, 16);
  p.partial_bias = round_up(padded_h, 16);
  p.dz = round_up(p.part_rows * p.dz_stride + 2 * lanes, 16);
  p.packed_dz = packs ? round_up(p.block_rows * padded_h + 2 * lanes, 16) : 0;
  p.packed_input = p.block_rows * kTileVectors * lanes;  // one column panel
  return p;
}

size_t workspace(const LinearTanhBackward& a) {
  const LinearTanhBackwardPlan p = plan(a);
  const int64_t elements = p.packed_weight + p.pieces * (p.partial_weight + p.partial_bias) +
                           workers(p.pieces) * p.per_worker();
  return elements * acc_size(a.dtype) + 256;
}

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
