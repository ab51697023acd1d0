"""The gradient of ``embedding_gather`` for any table: sums along the positions sorted by id.

keys       the id of each position in the smallest dtype that holds V; V for padding_idx and for ids
           out of range, which sorts them to the end, where they add nothing
           (then torch sorts the keys, stable, so that equal ids stay in the order of the batch)
segments   the sorted list is cut into pieces of equal length, a team of lanes each, several a
           program. A team adds the rows of its piece in order. An id within one piece is written at
           once; of an id that crosses pieces each piece leaves its part in the workspace: `tails`
           where the id begins in the piece, `heads` where it began before.
runs       a program for each piece in which such an id begins adds the parts, in order.

However often one id occurs, every team adds the same number of rows. The length of a piece follows
from the number of ids alone, and the sum of a team's rows does not depend on its neighbors: neither
the number of teams nor that of warps, which are tuned, changes a bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mlpkern.triton_kernels.device.bad_id import report
from mlpkern.triton_kernels.device.ids import Layout, id_at, row_offset
from mlpkern.triton_kernels.device.launch import Tuned, bucket, interpreted

PIECES = 8192  # wanted: 64 teams for each of 128 multiprocessors
SHORTEST, LONGEST = 8, 128  # positions of a piece


@triton.jit
def embedding_gather_backward_keys_kernel(
    ids,
    keys,
    site,
    count,
    V,
    padding,
    id_row,
    id_col,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
):
    base = tl.program_id(0).to(tl.int64) * BLOCK
    k = tl.arange(0, BLOCK)
    i = base + k
    there = i < count
    id = id_at(ids, i, there, id_row, id_col, T)
    good = (id >= 0) & (id < V)
    report(site, base, k, id, there & ~good)
    key = tl.where(good & (id != padding), id, V)
    tl.store(keys + i, key.to(keys.dtype.element_ty), mask=there)


@triton.jit
def _key_at(keys, at, there):
    """The sorted keys as int64, -1 where ``there`` is false: no key has this value."""
    return tl.where(there, tl.load(keys + at, mask=there, other=0).to(tl.int64), -1)


@triton.jit
def _row_at(order, grad, at, there, d, D, grad_row, grad_group, grad_col, T: tl.constexpr):
    """The rows of the gradient at places ``at`` of the sorted list, zero where not ``there``."""
    i = tl.load(order + at, mask=there, other=0)
    from_ = row_offset(i, grad_row, grad_group, T)
    mask = there[:, None] & (d < D)[None, :]
    pointers = grad + from_[:, None] + d[None, :] * grad_col
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _add(total, began_before, row, key, following, there, heads, grad_weight, d, D):
    """Adds a row to each team's sum and writes the sums of the ids that end with it."""
    total += row
    ends = there & (key != following)
    columns = (d < D)[None, :]
    tl.store(
        grad_weight + key[:, None] * D + d[None, :],
        total.to(grad_weight.dtype.element_ty),
        mask=(ends & ~began_before)[:, None] & columns,
    )
    tl.store(heads + d[None, :], total, mask=(ends & began_before)[:, None] & columns)
    return tl.where(ends[:, None], 0.0, total), began_before & ~ends


@triton.jit(do_not_specialize=["bucket"])
def embedding_gather_backward_segments_kernel(
    keys,
    order,
    grad,
    grad_weight,
    heads,
    tails,
    bucket,
    count,
    V,
    D,
    piece,
    grad_row,
    grad_group,
    grad_col,
    T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
):
    TEAMS: tl.constexpr = TILE // BLOCK_D
    team = tl.program_id(0).to(tl.int64) * TEAMS + tl.arange(0, TEAMS)
    d = tl.program_id(1).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = team * piece
    end = tl.minimum(begin + piece, count)
    own_heads = heads + team[:, None] * D
    total = tl.zeros((TEAMS, BLOCK_D), dtype=tl.float32)
    key0 = _key_at(keys, begin, begin < count)
    began_before = key0 == _key_at(keys, begin - 1, (begin > 0) & (begin < count))
    for j in range(0, piece, 4):  # four rows in flight: their loads come before the first addition
        at = begin + j
        key1 = _key_at(keys, at + 1, at + 1 < count)
        key2 = _key_at(keys, at + 2, at + 2 < count)
        key3 = _key_at(keys, at + 3, at + 3 < count)
        key4 = _key_at(keys, at + 4, at + 4 < count)
        there0 = (at < end) & (key0 < V)
        there1 = (at + 1 < end) & (key1 < V)
        there2 = (at + 2 < end) & (key2 < V)
        there3 = (at + 3 < end) & (key3 < V)
        row0 = _row_at(order, grad, at, there0, d, D, grad_row, grad_group, grad_col, T)
        row1 = _row_at(order, grad, at + 1, there1, d, D, grad_row, grad_group, grad_col, T)
        row2 = _row_at(order, grad, at + 2, there2, d, D, grad_row, grad_group, grad_col, T)
        row3 = _row_at(order, grad, at + 3, there3, d, D, grad_row, grad_group, grad_col, T)
        total, began_before = _add(
            total, began_before, row0, key0, key1, there0, own_heads, grad_weight, d, D
        )
        total, began_before = _add(
            total, began_before, row1, key1, key2, there1, own_heads, grad_weight, d, D
        )
        total, began_before = _add(
            total, began_before, row2, key2, key3, there2, own_heads, grad_weight, d, D
        )
        total, began_before = _add(
            total, began_before, row3, key3, key4, there3, own_heads, grad_weight, d, D
        )
        key0 = key4
    # What is left in the sum belongs to an id that goes on in the next piece.
    inside = begin + piece < count
    last = _key_at(keys, begin + piece - 1, inside)
    goes_on = inside & (last == _key_at(keys, begin + piece, inside)) & (last < V)
    columns = (d < D)[None, :]
    tl.store(own_heads + d[None, :], total, mask=(goes_on & began_before)[:, None] & columns)
    tl.store(
        tails + team[:, None] * D + d[None, :],
        total,
        mask=(goes_on & ~began_before)[:, None] & columns,
    )


_segments = Tuned(
    embedding_gather_backward_segments_kernel,
    [
        triton.Config({"TILE": 1 << 14 if interpreted() else 256}, num_warps=4),
        triton.Config({"TILE": 512}, num_warps=4),
        triton.Config({"TILE": 128}, num_warps=4),
    ],
    key=["BLOCK_D"],
)


@triton.jit
def _heads_of(keys, heads, key, first, piece, pieces, d, D, ROWS: tl.constexpr):
    """The sum of the heads of pieces [first, first + ROWS) that begin with ``key``; whether all."""
    p = first + tl.arange(0, ROWS)
    mine = _key_at(keys, p * piece, p < pieces) == key
    parts = tl.load(
        heads + p[:, None] * D + d[None, :], mask=mine[:, None] & (d < D)[None, :], other=0.0
    )
    return tl.sum(parts, axis=0), tl.sum(mine.to(tl.int32), axis=0) == ROWS


@triton.jit
def embedding_gather_backward_runs_kernel(
    keys,
    grad_weight,
    heads,
    tails,
    V,
    D,
    piece,
    pieces,
    FEW: tl.constexpr,
    MANY: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    own = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = own * piece
    key = tl.load(keys + begin + piece - 1).to(tl.int64)
    goes_on = key == tl.load(keys + begin + piece).to(tl.int64)
    before = tl.load(keys + begin - 1, mask=begin > 0, other=0).to(tl.int64)
    begins = (key != tl.load(keys + begin).to(tl.int64)) | (key != before) | (begin == 0)
    if goes_on & begins & (key < V):
        total = tl.load(tails + own * D + d, mask=d < D, other=0.0)
        # Most runs are short; a tile for the long ones would cost each of them its registers.
        part, more = _heads_of(keys, heads, key, own + 1, piece, pieces, d, D, FEW)
        total += part
        first = own + 1 + FEW
        while more:
            part, more = _heads_of(keys, heads, key, first, piece, pieces, d, D, MANY)
            total += part
            first += MANY
        tl.store(grad_weight + key * D + d, total.to(grad_weight.dtype.element_ty), mask=d < D)


def sum_sorted(layout: Layout, V: int, D: int, padding_idx: int, site: Tensor) -> Tensor:
    """The (V, D) gradient; ``layout`` has at least one id, V and D are at least 1."""
    count = layout.count
    keys = layout.ids.new_empty(count, dtype=_key_dtype(V))
    block = 1 << 16 if interpreted() else 1024
    embedding_gather_backward_keys_kernel[(triton.cdiv(count, block),)](
        layout.ids,
        keys,
        site,
        count,
        V,
        padding_idx,
        layout.id_row,
        layout.id_col,
        T=layout.T,
        BLOCK=block,
        num_warps=4,
    )
    keys, order = torch.sort(keys, stable=True)
    grad_weight = layout.grad.new_zeros(V, D)
    piece = triton.next_power_of_2(triton.cdiv(count, PIECES))
    piece = min(max(piece, SHORTEST), LONGEST)
    pieces = triton.cdiv(count, piece)
    heads, tails = layout.grad.new_empty(2, pieces, D, dtype=torch.float32)
    block_d = min(triton.next_power_of_2(D), 128)
    _segments[lambda meta: (_programs(pieces, meta, block_d), triton.cdiv(D, block_d))](
        keys,
        order,
        layout.grad,
        grad_weight,
        heads,
        tails,
        bucket(count),
        count,
        V,
        D,
        piece,
        layout.grad_row,
        layout.grad_group,
        layout.grad_col,
        T=layout.T,
        BLOCK_D=block_d,
    )
    if pieces > 1:
        embedding_gather_backward_runs_kernel[(pieces - 1, triton.cdiv(D, block_d))](
            keys,
            grad_weight,
            heads,
            tails,
            V,
            D,
            piece,
            pieces,
            FEW=4,
            MANY=64,
            BLOCK_D=block_d,
            num_warps=4,
        )
    return grad_weight


def _programs(pieces: int, meta: dict[str, int], block_d: int) -> int:
    return triton.cdiv(pieces, meta["TILE"] // block_d)


def _key_dtype(V: int) -> torch.dtype:
    """The smallest dtype that holds 0..V: the sort takes a pass for each of its bytes."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if torch.iinfo(dtype).max >= V:
            return dtype
    return torch.int64
