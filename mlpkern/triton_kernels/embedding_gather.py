"""``embedding_gather`` in Triton: output[i, d] = weight[id[i], d] over positions i = n*T + t.

The (..., T*D) output is an (N*T, D) matrix; a program owns a tile of it and reads each of its ids
once. The row of an id out of range is NaN.

The gradient is in embedding_gather_small.py (few ids, or few rows) and embedding_gather_sorted.py.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mlpkern.triton_kernels.device.bad_id import report, site_of
from mlpkern.triton_kernels.device.ids import id_at, layout_of
from mlpkern.triton_kernels.device.launch import Tuned, bucket, device_guard, interpreted
from mlpkern.triton_kernels.embedding_gather_small import is_small, sum_small
from mlpkern.triton_kernels.embedding_gather_sorted import sum_sorted

_OP = "embedding_gather"


@triton.jit(do_not_specialize=["bucket"])
def embedding_gather_forward_kernel(
    ids,
    weight,
    output,
    site,
    bucket,
    count,
    V,
    D,
    id_row,
    id_col,
    weight_row,
    weight_col,
    T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE: tl.constexpr,
):
    BLOCK_I: tl.constexpr = TILE // BLOCK_D
    base = tl.program_id(0).to(tl.int64) * BLOCK_I
    k = tl.arange(0, BLOCK_I)
    i = base + k
    there = i < count
    id = id_at(ids, i, there, id_row, id_col, T)
    good = (id >= 0) & (id < V)
    report(site, base, k, id, there & ~good & (tl.program_id(1) == 0))
    d = tl.program_id(1).to(tl.int64) * BLOCK_D + tl.arange(0, BLOCK_D)
    columns = (d < D)[None, :]
    rows = tl.load(
        weight + id[:, None] * weight_row + d[None, :] * weight_col,
        mask=good[:, None] & columns,
        other=float("nan"),
    )
    tl.store(output + i[:, None] * D + d[None, :], rows, mask=there[:, None] & columns)


# A copy has no order of summation: any tile gives the same bits.
_forward = Tuned(
    embedding_gather_forward_kernel,
    [
        triton.Config({"TILE": 1 << 18 if interpreted() else 2048}, num_warps=4),
        triton.Config({"TILE": 1024}, num_warps=4),
        triton.Config({"TILE": 4096}, num_warps=4),
        triton.Config({"TILE": 4096}, num_warps=8),
    ],
    key=["BLOCK_D"],
)


def embedding_gather_forward(input: Tensor, weight: Tensor) -> Tensor:
    """See ``mlpkern.reference.embedding_gather``."""
    V, D = weight.shape
    output = weight.new_empty(*input.shape[:-1], input.shape[-1] * D)
    if output.numel() == 0:
        return output
    layout = layout_of(input)
    block_d = min(triton.next_power_of_2(D), 1024)
    with device_guard(weight):
        _forward[lambda meta: (_tiles(layout.count, meta, block_d), triton.cdiv(D, block_d))](
            layout.ids,
            weight,
            output,
            site_of(_OP, input, V),
            bucket(layout.count),
            layout.count,
            V,
            D,
            layout.id_row,
            layout.id_col,
            *weight.stride(),
            T=layout.T,
            BLOCK_D=block_d,
        )
    return output


def embedding_gather_backward(
    grad_output: Tensor, input: Tensor, num_embeddings: int, padding_idx: int
) -> Tensor:
    """See ``mlpkern.reference.embedding_gather``; ids out of range add nothing."""
    V, D = num_embeddings, grad_output.shape[-1] // input.shape[-1]
    if input.numel() == 0 or V * D == 0:
        return grad_output.new_zeros(V, D)
    layout = layout_of(input, grad_output)
    site = site_of(_OP, input, V)
    add = sum_small if is_small(layout.count, V, D) else sum_sorted
    with device_guard(grad_output):
        return add(layout, V, D, padding_idx, site)


def _tiles(count: int, meta: dict[str, int], block_d: int) -> int:
    return triton.cdiv(count, meta["TILE"] // block_d)
