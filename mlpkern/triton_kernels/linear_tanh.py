"""``linear_tanh``: which kernels serve a call, and in tiles of what size.

    forward    one product whose epilogue adds the bias and takes tanh
    backward   products that form dz where they read it; the batch cut into pieces for dw and db,
               and the sum of the pieces
    wide       layers for which the tuned products of cuBLAS are the better choice,
               between kernels for bias and tanh, or for dz

The cuts of all sums follow from the shape alone, and so do the bits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from mlpkern.triton_kernels.device.launch import Tuned, bucket, device_guard
from mlpkern.triton_kernels.device.tiling import ceil_div, piece_rows, rows_of, unit_of
from mlpkern.triton_kernels.linear_tanh_product import (
    linear_tanh_backward_kernel,
    linear_tanh_forward_kernel,
)
from mlpkern.triton_kernels.linear_tanh_wide import add_pieces, epilogue, slope

#: Widths up to which the fused products run. What the fusion saves, a pass over (N, H), is worth
#: 370 / K of the time of a product; the backward forms dz anew in each of its tiles.
FORWARD_WIDTH = 512
BACKWARD_WIDTH = 256

#: Depths up to which float32 products run without tensor cores: no slower there, and exact.
EXACT_DEPTH = 16

#: Products N * H * K below which nothing is tuned: the launch takes longer than the kernel.
UNTUNED = 1 << 20


def _config(warps: int, stages: int, **tile: int) -> triton.Config:
    return triton.Config(tile, num_warps=warps, num_stages=stages)


# How a product reads its numbers -> the tiles that are tried. odd: one by one, since rows are not
# aligned, and the addresses leave no registers for large tiles. All are of whole tensor-core
# instructions of the same depth, so they differ in no bit; none spills registers on any card.
_FORWARD = {
    name: Tuned(
        linear_tanh_forward_kernel,
        [_config(w, s, BLOCK_N=n, BLOCK_H=h) for n, h, w, s in shapes],
        key=("PRECISION",),
    )
    for name, shapes in {
        "exact": [(64, 64, 4, 1)],
        "split": [(64, 64, 4, 3), (128, 64, 8, 3)],
        "split odd": [(64, 64, 8, 2)],
        "plain": [(64, 64, 4, 3), (64, 128, 8, 3), (128, 128, 8, 3)],
    }.items()
}
_BACKWARD = {
    name: Tuned(
        linear_tanh_backward_kernel,
        [_config(w, s, BLOCK_N=n, BLOCK_H=h, BLOCK_K=k) for n, h, k, w, s in shapes],
        key=("PRECISION", "NEED_X", "NEED_W"),
    )
    for name, shapes in {
        "odd": [(64, 64, 32, 8, 2)],
        "split narrow": [(64, 64, 32, 4, 2), (128, 128, 32, 8, 2)],
        "split": [(64, 64, 64, 4, 2), (128, 64, 64, 8, 2)],
        "plain narrow": [(64, 64, 32, 4, 3), (128, 128, 32, 8, 3)],
        "plain": [(64, 64, 64, 8, 3), (128, 64, 128, 8, 3)],
    }.items()
}

_fp32_precision = torch._C._get_fp32_precision_getter


def linear_tanh_forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """See ``mlpkern.reference.linear_tanh``; obeys torch's float32 matmul precision."""
    x = rows_of(input)
    (N, K), H = x.shape, weight.shape[0]
    wide = max(H, K) > FORWARD_WIDTH
    y = torch.mm(x, weight.t()) if wide else x.new_empty(N, H)
    if y.numel():
        with device_guard(x):
            if wide:
                epilogue(y, bias)
            else:
                _forward(x, weight, bias, y)
    return y if input.dim() == 2 else y.view(*input.shape[:-1], H)


def linear_tanh_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    output: Tensor,
    need_input: bool,
    need_weight: bool,
    need_bias: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """See ``mlpkern.reference.linear_tanh``; obeys torch's float32 matmul precision."""
    g, x, y = rows_of(grad_output), rows_of(input), rows_of(output).contiguous()
    (N, K), H = x.shape, weight.shape[0]
    db = x.new_empty(H) if need_bias else None
    if N == 0 or H == 0:
        dx = x.new_zeros(input.shape) if need_input else None
        return dx, x.new_zeros(H, K) if need_weight else None, db if db is None else db.zero_()
    with device_guard(x):
        if max(H, K) > BACKWARD_WIDTH:
            dz = slope(g, y, db)
            dx = torch.mm(dz, weight) if need_input else None
            dw = torch.mm(dz.t(), x) if need_weight else None
        else:
            dx = x.new_empty(N, K) if need_input else None
            dw = x.new_empty(H, K) if need_weight else None
            wanted = (dx, dw, db) if K else (None, None, db)  # the others have no elements
            if any(gradient is not None for gradient in wanted):
                _backward(g, y, x, weight, *wanted)
    return dx if dx is None else dx.view(input.shape), dw, db


def _forward(x: Tensor, w: Tensor, bias: Tensor | None, y: Tensor) -> None:
    (N, K), H = x.shape, w.shape[0]
    unit_h, unit_k = unit_of(x, H), unit_of(x, K, x.stride(0), w.stride(0))
    precision = _precision(x)
    kind = "split" if precision == "tf32x3" else "plain"
    if unit_k == 1 and kind == "split":
        kind = "split odd"
    if precision == "tf32x3" and K <= EXACT_DEPTH:
        precision, kind = "ieee", "exact"
    _launcher(_FORWARD[kind], N * H * K)[
        lambda tile: (ceil_div(N, tile["BLOCK_N"]) * ceil_div(H, tile["BLOCK_H"]),)
    ](
        x,
        w,
        y if bias is None else bias,
        y,
        N,
        H // unit_h,
        K // unit_k,
        x.stride(0) // unit_k,
        x.stride(1),
        w.stride(0) // unit_k,
        w.stride(1),
        0 if bias is None else bias.stride(0),
        bucket(N, H, K),
        HAS_BIAS=bias is not None,
        UNIT_H=unit_h,
        UNIT_K=unit_k,
        PRECISION=precision,
        BLOCK_K=min(_depth(x, precision, K), max(16, triton.next_power_of_2(K))),
    )


def _backward(
    g: Tensor,
    y: Tensor,
    x: Tensor,
    w: Tensor,
    dx: Tensor | None,
    dw: Tensor | None,
    db: Tensor | None,
) -> None:
    (N, K), H = x.shape, w.shape[0]
    unit_h, unit_k = unit_of(x, H, g.stride(0)), unit_of(x, K, x.stride(0), w.stride(0))
    per_piece = piece_rows(N, ceil_div(H, 64) * max(1, ceil_div(K, 64)))
    pieces = ceil_div(N, per_piece)
    sizes = [0 if sums is None else sums.numel() for sums in (dw, db)]
    piece_size = sizes[0] + sizes[1]
    into = (dw, db)
    if pieces > 1 and piece_size:
        partial = torch.empty(pieces, piece_size, dtype=torch.float32, device=x.device)
        into = (partial, partial[0, sizes[0] :])
    precision = _precision(x)

    def grid(tile: dict[str, int]) -> tuple[int]:
        across = ceil_div(K, tile["BLOCK_K"])
        programs = 0 if dx is None else ceil_div(N, tile["BLOCK_N"]) * across
        if dw is not None or db is not None:
            programs += pieces * ceil_div(H, tile["BLOCK_H"]) * (1 if dw is None else across)
        return (programs,)

    kind = ("split" if precision == "tf32x3" else "plain") + (" narrow" if K <= 32 else "")
    if min(unit_h, unit_k) == 1:
        kind = "odd"
    _launcher(_BACKWARD[kind], N * H * K)[grid](
        g,
        y,
        x,
        w,
        y if dx is None else dx,  # what is not needed is never touched
        y if into[0] is None else into[0],
        y if into[1] is None else into[1],
        N,
        H // unit_h,
        K // unit_k,
        g.stride(0) // unit_h,
        g.stride(1),
        x.stride(0) // unit_k,
        x.stride(1),
        w.stride(0) // unit_k,
        w.stride(1),
        per_piece,
        piece_size,
        bucket(N, H, K),
        NEED_X=dx is not None,
        NEED_W=dw is not None,
        NEED_B=db is not None,
        UNIT_H=unit_h,
        UNIT_K=unit_k,
        PRECISION=precision,
        BLOCK_R=_depth(x, precision, min(N, H)),
    )
    if into[0] is not dw:
        add_pieces(partial, dw, db)


def _launcher(tuned: Tuned, work: int) -> Any:
    """The kernel that a few programs run in no time in any tiles, or the one to be tuned."""
    return tuned.first if work < UNTUNED else tuned


def _precision(x: Tensor) -> str:
    """How a product of float32 reads its numbers; the half dtypes ignore it."""
    if x.dtype is torch.float32 and _fp32_precision("cuda", "matmul") != "tf32":
        return "tf32x3"
    return "tf32"


def _depth(x: Tensor, precision: str, terms: int) -> int:
    """How many terms of a sum one step of a product adds.

    Tensor cores cut off what does not fit into float32, while the steps of "tf32x3" are added to
    each other rounded to nearest: with short sums torch is so exact that short steps are needed.
    """
    if precision == "tf32x3" and terms <= 32:
        return 16
    return 128 // x.element_size()
