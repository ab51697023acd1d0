"""``linear_tanh``: what surrounds the products of cuBLAS, and the sums of pieces."""

from __future__ import annotations

import torch
from torch import Tensor

from mlpkern.triton_kernels.device.tiling import ceil_div, piece_rows, unit_of
from mlpkern.triton_kernels.linear_tanh_elements import (
    linear_tanh_epilogue_kernel,
    linear_tanh_pieces_kernel,
    linear_tanh_slope_kernel,
)


def epilogue(y: Tensor, bias: Tensor | None) -> None:
    """tanh(y + bias) in the place of y (N, H)."""
    N, H = y.shape
    unit = unit_of(y, H)
    linear_tanh_epilogue_kernel[(ceil_div(N, 16) * ceil_div(H, 256),)](
        *(y, y if bias is None else bias, N, H // unit, 0 if bias is None else bias.stride(0)),
        HAS_BIAS=bias is not None,
        UNIT=unit,
        BLOCK_N=16,
        BLOCK_H=256,
    )


def slope(g: Tensor, y: Tensor, db: Tensor | None) -> Tensor:
    """dz (N, H); its sums over the batch into db."""
    N, H = y.shape
    unit = unit_of(y, H, g.stride(0))
    per_piece = piece_rows(N, ceil_div(H, 128))
    pieces = ceil_div(N, per_piece)
    dz = torch.empty_like(y)
    sums = dz if db is None else torch.empty(pieces, H, dtype=torch.float32, device=y.device)
    linear_tanh_slope_kernel[(pieces * ceil_div(H, 128),)](
        *(g, y, dz, sums, N, H // unit, g.stride(0) // unit, g.stride(1), per_piece),
        NEED_BIAS=db is not None,
        UNIT=unit,
        BLOCK_N=16,
        BLOCK_H=128,
    )
    if db is not None:
        add_pieces(sums, None, db)
    return dz


def add_pieces(partial: Tensor, dw: Tensor | None, db: Tensor | None) -> None:
    """The sums of partial (P, size of dw and db) over the pieces, into dw and db."""
    pieces, length = partial.shape
    size = 0 if dw is None else dw.numel()
    linear_tanh_pieces_kernel[(ceil_div(length, 128),)](
        partial,
        partial if dw is None else dw,
        partial if db is None else db,
        *(pieces, size, length - size),
        PIECES_AT_ONCE=16,
        BLOCK=128,
    )
