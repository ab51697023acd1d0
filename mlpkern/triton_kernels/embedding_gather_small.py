"""The gradient of ``embedding_gather`` where few ids meet few rows: each row looks for its ids.

    grad_weight[v, d] = sum over i of (id[i] == v ? grad[i, d] : 0)

A program owns BLOCK_V rows and BLOCK_D columns of the table and reads a fixed piece of the ids. For
BLOCK_K of them at a time it adds the product of their one-hot matrix with their gradients, by plain
fused multiply-add: with factors 1 and 0 that is the exact addition of the selected ones. Only an
infinity or a NaN would spread over the table (0 * inf), so ids with such a gradient are added one
by one. Where there is more than one piece, a second kernel adds the tables of the pieces, always in
the same order. Pieces and tiles follow from sizes alone, and so do the bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mlpkern.triton_kernels.device.bad_id import report
from mlpkern.triton_kernels.device.ids import Layout, id_at, row_offset
from mlpkern.triton_kernels.device.launch import interpreted

# Pairs of an id and an element of the table up to which this costs less than a sort. A pair takes
# half of a GPU's multiply-add rate: 2^29 are about 35 us of one with 30 T/s of them. The ids of a
# table with more rows than one program owns are read by each of its programs.
FEW_ROWS = 64
WORK = 1 << 26
WORK_OF_FEW_ROWS = 1 << 29

PIECE = 256  # ids of a program, at least: few enough that one program does not wait for long
PROGRAMS = 4096  # beyond this many, pieces grow instead: 32 for each of 128 multiprocessors


@triton.jit
def embedding_gather_backward_small_kernel(
    ids,
    grad,
    sums,
    site,
    count,
    V,
    D,
    padding,
    piece_ids,
    id_row,
    id_col,
    grad_row,
    grad_group,
    grad_col,
    sums_piece,
    T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    piece = tl.program_id(0).to(tl.int64)
    first_v = tl.program_id(1).to(tl.int64) * BLOCK_V
    v = first_v + tl.arange(0, BLOCK_V)
    d = tl.program_id(2).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)
    first_block = (tl.program_id(1) == 0) & (tl.program_id(2) == 0)
    begin = piece * piece_ids
    end = tl.minimum(begin + piece_ids, count)
    total = tl.zeros((BLOCK_V, BLOCK_D), dtype=tl.float32)
    for start in range(begin, end, BLOCK_K):
        k = tl.arange(0, BLOCK_K)
        i = start + k
        there = i < end
        id = id_at(ids, i, there, id_row, id_col, T)
        good = (id >= 0) & (id < V)
        report(site, start, k, id, first_block & there & ~good)
        mine = good & (id != padding) & (id >= first_v) & (id < first_v + BLOCK_V)
        row = tl.where(mine, id - first_v, -1).to(tl.int32)
        at = row_offset(i, grad_row, grad_group, T)
        g = tl.load(
            grad + at[:, None] + d[None, :] * grad_col,
            mask=mine[:, None] & (d < D)[None, :],
            other=0.0,
        ).to(tl.float32)  # (K, D)
        if tl.sum((tl.abs(g) < float("inf")).to(tl.int32)) == BLOCK_K * BLOCK_D:
            chosen = (row[None, :] == tl.arange(0, BLOCK_V)[:, None]).to(tl.float32)  # (V, K)
            total = tl.dot(chosen, g, total, input_precision="ieee")
        else:
            for one in range(BLOCK_K):
                row_v = tl.sum(tl.where(k == one, row, 0), axis=0)
                row_g = tl.sum(tl.where((k == one)[:, None], g, 0.0), axis=0)
                total += tl.where((row_v == tl.arange(0, BLOCK_V))[:, None], row_g[None, :], 0.0)
    tl.store(
        sums + piece * sums_piece + v[:, None] * D + d[None, :],
        total.to(sums.dtype.element_ty),
        mask=(v < V)[:, None] & (d < D)[None, :],
    )


@triton.jit
def embedding_gather_backward_pieces_kernel(
    sums, grad_weight, pieces, elements, sums_piece, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    """grad_weight[e] = the sum of sums[p, e] over the pieces p."""
    e = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((ROWS, BLOCK), dtype=tl.float32)
    for first in range(0, pieces, ROWS):
        p = first + tl.arange(0, ROWS).to(tl.int64)
        total += tl.load(
            sums + p[:, None] * sums_piece + e[None, :],
            mask=(p < pieces)[:, None] & (e < elements)[None, :],
            other=0.0,
        )
    column = tl.sum(total, axis=0)
    tl.store(grad_weight + e, column.to(grad_weight.dtype.element_ty), mask=e < elements)


def is_small(count: int, V: int, D: int) -> bool:
    """Whether comparing every id with every row costs less than sorting the ids."""
    work = count * triton.next_power_of_2(V) * triton.next_power_of_2(D)
    return work <= (WORK_OF_FEW_ROWS if V <= FEW_ROWS else WORK)


def sum_small(layout: Layout, V: int, D: int, padding_idx: int, site: Tensor) -> Tensor:
    """The (V, D) gradient; ``layout`` has at least one id, V and D are at least 1."""
    block_d = min(max(triton.next_power_of_2(D), 16), 32)
    block_v = min(max(triton.next_power_of_2(V), 16), 4096 if interpreted() else 1024 // block_d)
    num_warps = 1 if block_v * block_d <= 512 else 2  # up to 16 sums a lane
    blocks = triton.cdiv(V, block_v) * triton.cdiv(D, block_d)
    piece = triton.next_power_of_2(triton.cdiv(layout.count * blocks, PROGRAMS))
    piece = max(piece, PIECE)
    pieces = triton.cdiv(layout.count, piece)
    grad_weight = layout.grad.new_empty(V, D)
    pitch = triton.cdiv(V * D, 8) * 8  # a piece's table begins at a sector of 32 bytes
    sums = grad_weight
    if pieces > 1:
        sums = layout.grad.new_empty(pieces, pitch, dtype=torch.float32)
    embedding_gather_backward_small_kernel[
        (pieces, triton.cdiv(V, block_v), triton.cdiv(D, block_d))
    ](
        layout.ids,
        layout.grad,
        sums,
        site,
        layout.count,
        V,
        D,
        padding_idx,
        piece,
        layout.id_row,
        layout.id_col,
        layout.grad_row,
        layout.grad_group,
        layout.grad_col,
        pitch,
        T=layout.T,
        BLOCK_K=PIECE if interpreted() else 32 * num_warps,  # an id a lane
        BLOCK_V=block_v,
        BLOCK_D=block_d,
        num_warps=num_warps,
    )
    if pieces > 1:
        block = 1 << 10 if interpreted() else 8
        embedding_gather_backward_pieces_kernel[(triton.cdiv(V * D, block),)](
            sums, grad_weight, pieces, V * D, pitch, ROWS=512, BLOCK=block, num_warps=8
        )
    return grad_weight
