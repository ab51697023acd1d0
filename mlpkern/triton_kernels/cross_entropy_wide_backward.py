"""``cross_entropy`` of long rows, backward: a program owns a block of a row.

The blocks are those of cross_entropy_wide.py. With probabilities a program owns a whole row, since
the sum of its shares comes before its first gradient. The formulas are in cross_entropy_loss.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mlpkern.triton_kernels.cross_entropy_loss import NONE, class_of, shared_factor
from mlpkern.triton_kernels.cross_entropy_wide import load_block, share_block
from mlpkern.triton_kernels.device.launch import Tuned, interpreted


@triton.jit
def store_block(output, n, start, C, d, MASKED: tl.constexpr, ALIGN: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """Write the columns [start, start + BLOCK) of row n that exist."""
    c = tl.arange(0, BLOCK)
    d = d.to(output.dtype.element_ty)
    first = n * C + start
    if ALIGN > 1:
        first = tl.multiple_of(first, ALIGN)
    at = output + first + c
    if MASKED:
        tl.store(at, d, mask=(start + c >= 0) & (start + c < C))
    else:
        tl.store(at, d)


@triton.jit
def gradient_block(input, input_row, input_col, target, target_row, target_col, weight,
                   output, n, start, C, own, even, m, s, t, mine, shares, factor, counted, bad,
                   PROBABILITIES: tl.constexpr, SMOOTHED: tl.constexpr, MASKED: tl.constexpr,
                   ALIGN: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One block of the gradient: p * (sum of a) - a, times the factor of the row."""
    x = load_block(input, input_row, input_col, n, start, C, 0.0, MASKED, ALIGN, BLOCK)
    d = tl.exp((x - m) - s) * shares
    if PROBABILITIES:
        d -= share_block(target, target_row, target_col, weight, n, start, C, own,
                         even, True, ALIGN, BLOCK)  # fmt: skip
    else:
        if SMOOTHED:
            d -= even * share_block(target, target_row, target_col, weight, n, start,
                                    C, own, even, False, ALIGN, BLOCK)  # fmt: skip
        d -= tl.where(start + tl.arange(0, BLOCK) == t, mine, 0.0)
    d *= factor
    d = tl.where(counted, d, tl.where(bad, float("nan"), 0.0))
    store_block(output, n, start, C, d, MASKED, ALIGN, BLOCK)


@triton.jit(do_not_specialize=["bucket"])
def cross_entropy_backward_wide_kernel(
    grad,  # (N,) or 0-d
    grad_row,
    input,  # (N, C)
    input_row,
    input_col,
    target,  # (N,) ids or (N, C) probabilities
    target_row,
    target_col,
    weight,  # (C,), contiguous, or None
    weight_sum,  # 0-d float32, or None for C weights of one
    lse,  # (2, N) float32
    total,  # 0-d float32
    output,  # (N, C), contiguous
    N,
    C,
    ignore_index,
    own,
    even,
    bucket,
    REDUCTION: tl.constexpr,
    PROBABILITIES: tl.constexpr,
    SMOOTHED: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    blocks = tl.cdiv(C + (ALIGN - 1 if ALIGN else 0), BLOCK)
    program = tl.program_id(0).to(tl.int64)
    # A block a program; with probabilities a row, since the sum of its shares comes first.
    n = program if PROBABILITIES else program // blocks
    shift = 0
    if ALIGN > 1:
        shift = (n * input_row % ALIGN).to(tl.int32)
    m = tl.load(lse + n)
    s = tl.load(lse + N + n)
    if REDUCTION == NONE:
        factor = tl.load(grad + n * grad_row).to(tl.float32)
    else:
        factor = shared_factor(grad, total, REDUCTION)
    if PROBABILITIES:
        lanes = tl.zeros([BLOCK], tl.float32)
        for block in range(0, blocks):
            start = block * BLOCK - shift
            lanes += share_block(target, target_row, target_col, weight, n, start, C, own, even,
                                 True, ALIGN, BLOCK)  # fmt: skip
        shares = tl.sum(lanes)
        for block in range(0, blocks):
            gradient_block(
                input, input_row, input_col, target, target_row, target_col, weight,
                output, n, block * BLOCK - shift, C, own, even, m, s, 0, 0.0, shares, factor,
                True, False, True, SMOOTHED, True, ALIGN, BLOCK)  # fmt: skip
    else:
        raw = tl.load(target + n * target_row)
        t, counted, bad = class_of(raw, ignore_index, C)
        block = (program - n * blocks).to(tl.int32)
        mine = own
        if weight is not None:
            mine = own * tl.load(weight + t).to(tl.float32)
        shares = mine
        if SMOOTHED:
            shares += even * (C if weight is None else tl.load(weight_sum))
        start = block * BLOCK - shift
        if (start >= 0) & (start + BLOCK <= C):
            gradient_block(
                input, input_row, input_col, target, target_row, target_col, weight,
                output, n, start, C, own, even, m, s, t, mine, shares, factor, counted, bad,
                False, SMOOTHED, False, ALIGN, BLOCK)  # fmt: skip
        else:
            gradient_block(
                input, input_row, input_col, target, target_row, target_col, weight,
                output, n, start, C, own, even, m, s, t, mine, shares, factor, counted, bad,
                False, SMOOTHED, True, ALIGN, BLOCK)  # fmt: skip


# With ids a gradient is a function of its own logit alone: any block gives the same bits.
_BLOCKS = [(1 << 15, 4)] if interpreted() else [(4096, 8), (2048, 4), (8192, 8), (4096, 4)]

wide_backward = Tuned(
    cross_entropy_backward_wide_kernel,
    [triton.Config({"BLOCK": block}, num_warps=warps) for block, warps in _BLOCKS],
    key=("REDUCTION", "SMOOTHED", "ALIGN"),
)
