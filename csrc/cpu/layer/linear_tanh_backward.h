// The gradients of tanh(rows weight^T + bias) for rows from anywhere.
//
// A thread takes a piece of the batch, in it a block of rows at a time, and in that a part of a
// block: dz = (1 - y^2) dy, summed for dbias on the way, then dinput = dz weight, while the rows of
// the next part are prefetched into L2. After all parts of a block dweight += dz^T input. The
// pieces are added in order.
#pragma once

#include "cpu/layer/linear_tanh_plan.h"
#include "cpu/layer/linear_tanh_products.h"

namespace mlpkern::cpu::MLPKERN_ISA {
namespace {

constexpr int64_t kStripRows = 32;  // of a part: their dz stays in L1

// Where the rows of a block of the input are; the block is skipped unless `good`.
template <class X>
struct InputBlock {
  const X* rows;
  bool good = true;
};

// The gradients of a layer, summed over one range of rows after another. args.dinput only says
// whether this gradient is computed; args.N is the longest range.
template <class T>
class LinearTanhGradients {
  using A = acc_t<T>;

 public:
  explicit LinearTanhGradients(const LinearTanhBackward& args)
      : a_(args),
        p_(plan(args)),
        dweight_(static_cast<T*>(args.dweight)),
        partial_stride_(p_.partial_stride) {
    Scratch<A> scratch{static_cast<char*>(a_.workspace)};
    packed_weight_ = scratch.take(p_.packed_weight);
    partial_weight_ = scratch.take(p_.partial_weight * p_.pieces);
    partial_bias_ = scratch.take(p_.partial_bias * p_.pieces);
    worker_scratch_ = scratch.take(0);
    // A single piece in the accumulation type needs no partial sums: it writes the result.
    if constexpr (sizeof(T) == sizeof(A)) {
      in_place_ = p_.pieces == 1 && dweight_;
      if (in_place_) partial_weight_ = dweight_, partial_stride_ = a_.K;
    }
    if (a_.dinput) pack_weight();
  }

  // Adds rows [first, end). input_rows(n, rows, worker) is the InputBlock that begins at row n, its
  // rows input_stride apart; dinput_rows(n) is where their gradient goes, (rows, K) contiguous.
  template <class InputRows, class DinputRows>
  void add_rows(int64_t first, int64_t end, const InputRows& input_rows, int64_t input_stride,
                const DinputRows& dinput_rows) {
    const bool anew = !started_;
    started_ = true;
    parallel_for_work(
        p_.pieces, 2 * (end - first) * a_.K * a_.H, [&](int64_t piece, int64_t worker) {
          A* piece_weight = partial_weight_ + piece * p_.partial_weight;
          A* piece_bias = partial_bias_ + piece * p_.partial_bias;
          const int64_t from = first + piece * p_.piece_rows;
          const int64_t to = from + p_.piece_rows < end ? from + p_.piece_rows : end;
          if (anew) clear(piece_bias, p_.partial_bias);
          bool fresh = anew && dweight_;  // whether piece_weight holds nothing yet
          for (int64_t n = from; n < to; n += p_.block_rows) {
            const int64_t rows = to - n < p_.block_rows ? to - n : p_.block_rows;
            const auto input = input_rows(n, rows, worker);
            if (!input.good) continue;
            A* dz = worker_scratch_ + worker * p_.per_worker();
            A* packed_dz = p_.packed_dz && dweight_ ? dz + p_.dz : nullptr;
            Ahead ahead;
            for (int64_t row = 0; row < rows; row += p_.part_rows) {
              const int64_t part = rows - row < p_.part_rows ? rows - row : p_.part_rows;
              form_part(dz, packed_dz, piece_bias, n + row, part, row, rows);
              ahead = what_follows(n + row + part, end, part, rows, dinput_rows);
              if (a_.dinput)
                multiply_by_weight(dinput_rows(n + row), a_.K, dz, p_.dz_stride, part, a_.H,
                                   packed_weight_, ahead);
            }
            if (dweight_)
              add_outer_products(piece_weight, partial_stride_, fresh, dz, p_.dz_stride, rows, a_.H,
                                 input.rows, input_stride, a_.K, dz + p_.dz + p_.packed_dz,
                                 packed_dz, ahead);
            fresh = false;
          }
          if (fresh) clear(piece_weight, a_.H * partial_stride_);
        });
  }

  // Writes dweight and dbias once every row is added.
  void finish() {
    if (a_.dbias)
      add_pieces(static_cast<T*>(a_.dbias), partial_bias_, p_.pieces, p_.partial_bias, a_.H);
    if (!dweight_ || in_place_) return;
    parallel_for_work(a_.H, 8 * a_.H * a_.K * p_.pieces, [&](int64_t h) {
      add_pieces(dweight_ + h * a_.K, partial_weight_ + h * p_.partial_stride, p_.pieces,
                 p_.partial_weight, a_.K);
    });
  }

 private:
  static void clear(A* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = A{0};
  }

  void pack_weight() {
    const T* weight = static_cast<const T*>(a_.weight);
    const ColumnPanels<A> panels(a_.K);
    parallel_for_work(panels.count, 8 * a_.H * a_.K, [&](int64_t panel) {
      pack_rows(packed_weight_ + panels.offset(panel, a_.H), panels.step(panel),
                weight + panel * kTileColumns<A>, a_.weight_row_stride, a_.H, panels.width(panel));
    });
  }

  // dz of the `part` rows of the batch from n on, rows [row, row + part) of a block of `rows`.
  void form_part(A* dz, A* packed_dz, A* piece_bias, int64_t n, int64_t part, int64_t row,
                 int64_t rows) const {
    const T* doutput = static_cast<const T*>(a_.doutput) + n * a_.doutput_row_stride;
    const T* output = static_cast<const T*>(a_.output) + n * a_.output_row_stride;
    for (int64_t r = 0; r < part; r += kStripRows) {
      const int64_t strip = part - r < kStripRows ? part - r : kStripRows;
      A* dz_r = dz + r * p_.dz_stride;
      form_dz(dz_r, p_.dz_stride, piece_bias, doutput + r * a_.doutput_row_stride,
              a_.doutput_row_stride, output + r * a_.output_row_stride, a_.output_row_stride, strip,
              a_.H);
      if (packed_dz)
        pack_by_column_tiles(packed_dz, RowTiles(a_.H), rows, row + r, dz_r, p_.dz_stride, strip);
    }
  }

  // The prefetches of the part that begins at row n, made during the products of the previous part,
  // `part` rows of a block of `rows`.
  template <class DinputRows>
  Ahead what_follows(int64_t n, int64_t end, int64_t part, int64_t rows,
                     const DinputRows& dinput_rows) const {
    Ahead ahead;
    const int64_t next = end - n < p_.part_rows ? end - n : p_.part_rows;
    const int64_t panels = ColumnPanels<A>(a_.K).count;
    int64_t terms = 0;
    ahead.add_rows(static_cast<const T*>(a_.output), n, next, a_.H, a_.output_row_stride);
    ahead.add_rows(static_cast<const T*>(a_.doutput), n, next, a_.H, a_.doutput_row_stride);
    if (dweight_) {
      ahead.add_rows(static_cast<const T*>(a_.input), n, next, a_.K, a_.input_row_stride);
      if (!a_.dinput || part == rows) terms += RowTiles(a_.H).count * panels * rows;
    }
    if (a_.dinput) {
      ahead.add_rows(dinput_rows(n), 0, next, a_.K, a_.K);
      terms += RowTiles(part).count * panels * a_.H;
    }
    ahead.spread_over(terms);
    return ahead;
  }

  LinearTanhBackward a_;
  LinearTanhBackwardPlan p_;
  T* dweight_;
  int64_t partial_stride_;
  bool in_place_ = false, started_ = false;
  A *packed_weight_, *partial_weight_, *partial_bias_, *worker_scratch_;
};

}  // namespace
}  // namespace mlpkern::cpu::MLPKERN_ISA
