"""``cross_entropy`` of rows that fit in registers: a program owns a tile (ROWS, BLOCK >= C).

The rows of a tile lie one after another in memory, so that loads of a narrow row, such as C = 27,
share their cache lines with those of its neighbours. C is known when a kernel is compiled: within
PACKED tiles, those of contiguous logits, addresses are then constants beside one register. The
formulas are in cross_entropy_loss.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mlpkern.triton_kernels.cross_entropy_loss import NONE, class_of, finish, shared_factor
from mlpkern.triton_kernels.device.bad_id import report
from mlpkern.triton_kernels.device.launch import Tuned, interpreted


@triton.jit
def tile_at(pointer, base, local, c, row, col, C: tl.constexpr, PACKED: tl.constexpr):
    """Pointers to the columns c of the rows base + local."""
    if PACKED:
        return pointer + base * C + (local[:, None] * C + c[None, :])
    return pointer + (base + local)[:, None] * row + c[None, :].to(tl.int64) * col


@triton.jit
def rows_there(base, local, N, ROWS: tl.constexpr):
    """Which of the rows base + local exist."""
    return local < tl.minimum(N - base, ROWS).to(tl.int32)


@triton.jit
def factors(grad, grad_row, total, base, local, there, ROWS: tl.constexpr, REDUCTION: tl.constexpr):
    """What multiplies the gradient of each row, (ROWS,)."""
    if REDUCTION == NONE:
        return tl.load(grad + (base + local) * grad_row, mask=there, other=0).to(tl.float32)
    return tl.full([ROWS], 1.0, tl.float32) * shared_factor(grad, total, REDUCTION)


@triton.jit
def cross_entropy_forward_tile_kernel(
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
    total,  # 0-d float32
    partial,  # (2, programs) float32, or None for one program
    N,
    ignore_index,
    own,
    even,
    C: tl.constexpr,
    REDUCTION: tl.constexpr,
    PROBABILITIES: tl.constexpr,
    SMOOTHED: tl.constexpr,
    PACKED: tl.constexpr,
    ONE: tl.constexpr,  # whether there is one program
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    base = tl.program_id(0).to(tl.int64) * ROWS
    local = tl.arange(0, ROWS)
    there = rows_there(base, local, N, ROWS)
    c = tl.arange(0, BLOCK)
    mask = there[:, None] & (c < C)[None, :]
    at = tile_at(input, base, local, c, input_row, input_col, C, PACKED)
    x = tl.load(at, mask=mask, other=-float("inf")).to(tl.float32)  # (ROWS, BLOCK)
    m = tl.max(x, 1)
    z = x - m[:, None]
    s = tl.log(tl.sum(tl.exp(z), 1))
    if PROBABILITIES or SMOOTHED:
        share = tl.full([ROWS, BLOCK], 1.0, tl.float32)
        if PROBABILITIES:
            at = tile_at(target, base, local, c, target_row, target_col, C, PACKED)
            share = own * tl.load(at, mask=mask, other=0).to(tl.float32) + even
        if weight is not None:
            w = tl.load(weight + c, mask=c < C, other=0)
            share = share * w.to(tl.float32)[None, :]
        spread = s * tl.sum(tl.where(mask, share, 0), 1) - tl.sum(tl.where(mask, share * z, 0), 1)
    if PROBABILITIES:
        rows = tl.where(there, spread, 0)
        counts = tl.full([ROWS], 1.0, tl.float32)
        counted = there
    else:
        raw = tl.load(target + (base + local) * target_row, mask=there, other=0)
        t, counted, bad = class_of(raw, ignore_index, C)
        counted, bad = counted & there, bad & there
        report(site, base, local, raw, bad)
        x_t = tl.load(input + (base + local) * input_row + t * input_col, mask=there, other=0)
        x_t = x_t.to(tl.float32)
        counts = tl.full([ROWS], 1.0, tl.float32)
        if weight is not None:
            counts = tl.load(weight + t, mask=there, other=0).to(tl.float32)
        rows = counts * (s - (x_t - m))
        if SMOOTHED:
            rows = own * rows + even * spread
        rows = tl.where(bad, float("nan"), rows)
        rows = tl.where(counted | bad, rows, 0)
    tl.store(lse + base + local, m, mask=there)
    tl.store(lse + N + base + local, s, mask=there)
    if REDUCTION == NONE:
        tl.store(loss + base + local, rows.to(loss.dtype.element_ty), mask=there)
    losses = tl.sum(rows)
    weights = tl.sum(tl.where(counted, counts, 0))
    if ONE:
        finish(loss, total, losses, weights, N, REDUCTION, PROBABILITIES)
    else:
        tl.store(partial + tl.program_id(0), losses)
        tl.store(partial + tl.num_programs(0) + tl.program_id(0), weights)


@triton.jit(do_not_specialize=["bucket"])
def cross_entropy_backward_tile_kernel(
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
    ignore_index,
    own,
    even,
    bucket,
    C: tl.constexpr,
    REDUCTION: tl.constexpr,
    PROBABILITIES: tl.constexpr,
    SMOOTHED: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,  # ROWS * BLOCK
):
    ROWS: tl.constexpr = TILE // BLOCK if TILE > BLOCK else 1
    base = tl.program_id(0).to(tl.int64) * ROWS
    local = tl.arange(0, ROWS)
    there = rows_there(base, local, N, ROWS)
    c = tl.arange(0, BLOCK)
    mask = there[:, None] & (c < C)[None, :]
    at = tile_at(input, base, local, c, input_row, input_col, C, PACKED)
    x = tl.load(at, mask=mask, other=0).to(tl.float32)  # (ROWS, BLOCK)
    m = tl.load(lse + base + local, mask=there, other=0)
    s = tl.load(lse + N + base + local, mask=there, other=0)
    p = tl.exp((x - m[:, None]) - s[:, None])
    if weight is not None:
        w = tl.load(weight + c, mask=c < C, other=0).to(tl.float32)
    if PROBABILITIES:
        at = tile_at(target, base, local, c, target_row, target_col, C, PACKED)
        share = own * tl.load(at, mask=mask, other=0).to(tl.float32) + even
        if weight is not None:
            share = share * w[None, :]
        share = tl.where(mask, share, 0)
        d = p * tl.sum(share, 1)[:, None] - share
    else:
        raw = tl.load(target + (base + local) * target_row, mask=there, other=0)
        t, counted, bad = class_of(raw, ignore_index, C)
        mine = tl.full([ROWS], 1.0, tl.float32) * own
        if weight is not None:
            mine = own * tl.load(weight + t, mask=there, other=0).to(tl.float32)
        shares = mine
        if SMOOTHED:
            shares += even * (C if weight is None else tl.load(weight_sum))
        d = p * shares[:, None]
        if SMOOTHED:
            d -= even if weight is None else even * w[None, :]
        d -= tl.where(c[None, :] == t.to(tl.int32)[:, None], mine[:, None], 0)
    d *= factors(grad, grad_row, total, base, local, there, ROWS, REDUCTION)[:, None]
    if not PROBABILITIES:
        d = tl.where(counted[:, None], d, tl.where(bad, float("nan"), 0.0)[:, None])
    at = tile_at(output, base, local, c, C, 1, C, True)
    tl.store(at, d.to(output.dtype.element_ty), mask=mask)


# With ids a gradient is a function of its own logit alone: any tile gives the same bits.
_TILES = [(1 << 18, 4)] if interpreted() else [(4096, 8), (2048, 4), (4096, 4)]

tile_backward = Tuned(
    cross_entropy_backward_tile_kernel,
    [triton.Config({"TILE": tile}, num_warps=warps) for tile, warps in _TILES],
    key=("REDUCTION", "SMOOTHED", "BLOCK"),
)
