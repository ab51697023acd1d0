"""Where the ids of a gather and the rows of its gradient lie, for any strides."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Position i = n*T + t: its id at ids[n*id_row + t*id_col], its row of the gradient at
    grad[n*grad_row + t*grad_group], with grad_col from column to column. T is 1 where a single
    stride leads from each position to the next, so that kernels need no division.
    """

    ids: Tensor
    grad: Tensor
    count: int
    T: int
    id_row: int
    id_col: int
    grad_row: int
    grad_group: int
    grad_col: int


def layout_of(input: Tensor, grad_output: Tensor | None = None) -> Layout:
    """The layout of ids (..., T), T >= 1, and of the gradient (..., T*D), if there is one.

    Copies only what has leading dimensions that no single stride describes.
    """
    T = input.shape[-1]
    ids = input.reshape(-1, T)  # (N, T)
    grad = ids if grad_output is None else grad_output.reshape(-1, grad_output.shape[-1])
    N, D = ids.shape[0], grad.shape[1] // T
    id_row, id_col = ids.stride()
    grad_row, grad_col = grad.stride()
    grad_group = D * grad_col
    if (N == 1 or id_row == T * id_col) and (N == 1 or grad_row == T * grad_group):
        id_row, grad_row = id_col, grad_group
        T = 1
    return Layout(ids, grad, ids.numel(), T, id_row, id_col, grad_row, grad_group, grad_col)


@triton.jit
def row_offset(i, row, group, T: tl.constexpr):
    """Where position i lies in an array with strides (row, group) over (n, t)."""
    if T == 1:
        return i * row
    else:
        n = i // T
        return n * row + (i - n * T) * group


@triton.jit
def id_at(ids, i, there, row, col, T: tl.constexpr):
    """The ids of the positions i as int64, -1 where ``there`` is false."""
    id = tl.load(ids + row_offset(i, row, col, T), mask=there, other=0).to(tl.int64)
    return tl.where(there, id, -1)
