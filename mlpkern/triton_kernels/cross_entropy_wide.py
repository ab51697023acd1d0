"""``cross_entropy`` of long rows, forward: a program owns a row, block after block.

A row begins where the one before it ended, and so, at an odd C, at any address. The blocks of a row
therefore begin at the last multiple of 16 bytes before it: all blocks but the first and the last
then lie within the row and are read and written in vectors, without a mask.

The forward is online (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018): a
larger maximum scales the sum so far. Each lane adds its own share; the lanes are added at the end.
The formulas are in cross_entropy_loss.py.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mlpkern.triton_kernels.cross_entropy_loss import NONE, class_of
from mlpkern.triton_kernels.device.bad_id import report_one
from mlpkern.triton_kernels.device.launch import Tuned


def alignment(input: Tensor, target: Tensor) -> int:
    """Elements in 16 bytes where rows begin at any address, 1 where all are aligned, 0 if strided.

    Strided are columns that are not neighbours, of the logits or of their probabilities.
    """
    if input.stride(1) != 1 or (target.is_floating_point() and target.stride(1) != 1):
        return 0
    elements = 16 // input.element_size()
    return elements if input.is_contiguous() and input.shape[1] % elements else 1


@triton.jit
def load_block(pointer, row, col, n, start, C, other, MASKED: tl.constexpr, ALIGN: tl.constexpr,
               BLOCK: tl.constexpr):  # fmt: skip
    """The columns [start, start + BLOCK) of row n in float32, ``other`` outside of [0, C).

    ALIGN: 0 for any strides, otherwise the columns are neighbours and n * row + start is a multiple
    of it.
    """
    c = tl.arange(0, BLOCK)
    if ALIGN > 1:
        at = pointer + tl.multiple_of(n * row + start, ALIGN) + c
    elif ALIGN == 1:
        at = pointer + n * row + (start + c)
    else:
        at = pointer + n * row + (start + c).to(tl.int64) * col
    if MASKED:
        return tl.load(at, mask=(start + c >= 0) & (start + c < C), other=other).to(tl.float32)
    return tl.load(at).to(tl.float32)


@triton.jit
def share_block(target, target_row, target_col, weight, n, start, C, own, even,
                PROBABILITIES: tl.constexpr, ALIGN: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """a[c] of a block, 0 outside of [0, C): of the probabilities, or else the class weights."""
    c = start + tl.arange(0, BLOCK)
    mask = (c >= 0) & (c < C)
    share = tl.where(mask, 1.0, 0.0)
    if PROBABILITIES:
        at = target + n * target_row + (c if ALIGN else c.to(tl.int64) * target_col)
        share = tl.where(mask, own * tl.load(at, mask=mask, other=0).to(tl.float32) + even, 0)
    if weight is not None:
        share = share * tl.load(weight + c, mask=mask, other=0).to(tl.float32)
    return share


@triton.jit
def add_block(input, input_row, input_col, target, target_row, target_col, weight,
              n, start, C, own, even, m, sums, shares, dots, PROBABILITIES: tl.constexpr,
              SMOOTHED: tl.constexpr, MASKED: tl.constexpr, ALIGN: tl.constexpr,
              BLOCK: tl.constexpr):  # fmt: skip
    """(m, sums, shares, dots) with one more block in them; the sums are relative to m."""
    x = load_block(input, input_row, input_col, n, start, C, -float("inf"), MASKED, ALIGN, BLOCK)
    largest = tl.maximum(m, tl.max(x))
    origin = tl.where(largest == -float("inf"), 0.0, largest)  # a block of -inf adds zeros
    sums = sums * tl.exp(m - origin) + tl.exp(x - origin)
    if PROBABILITIES or SMOOTHED:
        share = share_block(target, target_row, target_col, weight, n, start, C, own,
                            even, PROBABILITIES, ALIGN, BLOCK)  # fmt: skip
        c = start + tl.arange(0, BLOCK)
        dots += shares * tl.where(m == -float("inf"), 0.0, m - origin)
        dots += tl.where((c >= 0) & (c < C), share * (x - origin), 0)
        shares += share
    return largest, sums, shares, dots


@triton.jit(do_not_specialize=["bucket"])
def cross_entropy_forward_wide_kernel(
    input,  # (N, C)
    input_row,
    input_col,
    target,  # (N,) ids or (N, C) probabilities
    target_row,
    target_col,
    weight,  # (C,), contiguous, or None
    site,  # where bad ids are recorded
    loss,  # (N,) or 0-d
    lse,  # (2, N) float32: maxima, logs of the sums
    total,
    partial,  # (2, N) float32: losses, weights
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
    STAGES: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    shift = 0
    if ALIGN > 1:
        shift = (n * input_row % ALIGN).to(tl.int32)
    blocks = tl.cdiv(C + shift, BLOCK)
    m = -float("inf")
    sums = tl.zeros([BLOCK], tl.float32)
    shares = tl.zeros([BLOCK], tl.float32)
    dots = tl.zeros([BLOCK], tl.float32)
    m, sums, shares, dots = add_block(
        input, input_row, input_col, target, target_row, target_col, weight,
        n, -shift, C, own, even, m, sums, shares, dots, PROBABILITIES, SMOOTHED,
        ALIGN > 1, ALIGN, BLOCK)  # fmt: skip
    for block in tl.range(1, blocks - 1, num_stages=STAGES):
        m, sums, shares, dots = add_block(
            input, input_row, input_col, target, target_row, target_col, weight,
            n, block * BLOCK - shift, C, own, even, m, sums, shares, dots, PROBABILITIES,
            SMOOTHED, False, ALIGN, BLOCK)  # fmt: skip
    m, sums, shares, dots = add_block(
        input, input_row, input_col, target, target_row, target_col, weight,
        n, (blocks - 1) * BLOCK - shift, C, own, even, m, sums, shares, dots, PROBABILITIES,
        SMOOTHED, True, ALIGN, BLOCK)  # fmt: skip
    s = tl.log(tl.sum(sums))
    tl.store(lse + n, m)
    tl.store(lse + N + n, s)
    row = s * 0.0
    count = 1.0
    if PROBABILITIES or SMOOTHED:
        row = s * tl.sum(shares) - tl.sum(dots)
    if not PROBABILITIES:
        raw = tl.load(target + n * target_row)
        t, counted, bad = class_of(raw, ignore_index, C)
        if bad:
            report_one(site, n, raw)
        x_t = tl.load(input + n * input_row + t * input_col).to(tl.float32)
        if weight is not None:
            count = tl.load(weight + t).to(tl.float32)
        mine = count * (s - (x_t - m))
        row = own * mine + even * row if SMOOTHED else mine
        row = tl.where(counted, row, tl.where(bad, float("nan"), 0.0))
        count = tl.where(counted, count, 0.0)
    if REDUCTION == NONE:
        tl.store(loss + n, row.to(loss.dtype.element_ty))
    tl.store(partial + n, row)
    tl.store(partial + N + n, count)


#: Classes from which a row is wide: the first and the last of its blocks are never the same.
WIDE = 4097

# The order of the sums follows from BLOCK and num_warps: only the loads ahead may differ. Sums of
# shares take so many registers more that a block is half as long.
wide_forward = Tuned(
    cross_entropy_forward_wide_kernel,
    [triton.Config({"BLOCK": WIDE - 1, "STAGES": n}, num_warps=8) for n in (1, 2, 3)],
    key=("PROBABILITIES", "SMOOTHED", "ALIGN"),
)
wide_forward_shares = Tuned(
    cross_entropy_forward_wide_kernel,
    [triton.Config({"BLOCK": WIDE // 2, "STAGES": n}, num_warps=8) for n in (1, 3)],
    key=("PROBABILITIES", "SMOOTHED", "ALIGN"),
)
