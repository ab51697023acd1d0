"""``cross_entropy`` on Triton: the loss of rows of logits, and the gradient of the logits.

The formulas are those of ``mlpkern.reference.cross_entropy``. Two pairs of kernels:

    C <= 4096    cross_entropy_tile.py    a tile of whole rows a program
    wider        cross_entropy_wide*.py   a row, or a block of it, a program

The forward reads the logits once and keeps of each row the maximum and the log of the sum, apart;
the backward reads the logits once and writes the gradient once. The losses are added within a
program, then over the programs by one more, in an order that follows from shapes alone.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from mlpkern.reference.cross_entropy import MEAN, NONE
from mlpkern.triton_kernels.cross_entropy_loss import cross_entropy_finish_kernel
from mlpkern.triton_kernels.cross_entropy_tile import (
    cross_entropy_forward_tile_kernel,
    tile_backward,
)
from mlpkern.triton_kernels.cross_entropy_wide import (
    WIDE,
    alignment,
    wide_forward,
    wide_forward_shares,
)
from mlpkern.triton_kernels.cross_entropy_wide_backward import wide_backward
from mlpkern.triton_kernels.device.bad_id import site_of
from mlpkern.triton_kernels.device.launch import bucket, device_guard, interpreted

TILE = 4096  # numbers of a tile: 32 a thread of four warps
FEWEST_ROWS = 32  # of a tile, so that a lecture's batch is one program
PROGRAMS = 128  # about the multiprocessors of a card: as many tiles before they grow


def cross_entropy_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``mlpkern.reference.cross_entropy``; a target out of range makes its loss NaN."""
    N, C = input.shape
    loss = input.new_empty((N,) if reduction == NONE else ())
    lse = input.new_empty(2, N, dtype=torch.float32)
    total = input.new_empty((), dtype=torch.float32)
    if N == 0:
        return loss.fill_(torch.nan if reduction == MEAN else 0), lse, total.zero_()
    probabilities = target.is_floating_point()
    arrays = (
        input, input.stride(0), input.stride(1),
        target, target.stride(0), target.stride(1) if probabilities else 0,
        None if weight is None else weight.contiguous(),
        None if probabilities else site_of("cross_entropy", target, C, ignore_index),
        loss, lse, total,
    )  # fmt: skip
    numbers = (ignore_index, 1 - label_smoothing, label_smoothing / C)
    options = (reduction, probabilities, label_smoothing != 0)
    packed = input.is_contiguous() and (not probabilities or target.is_contiguous())
    wide = C >= WIDE
    rows = 1 if wide else _tile_rows(N, C)
    programs = triton.cdiv(N, rows)
    partial = None
    if programs > 1 or wide:
        partial = input.new_empty(2, programs, dtype=torch.float32)
    with device_guard(input):
        if wide:
            launch = wide_forward_shares if probabilities or label_smoothing else wide_forward
            launch[(programs,)](
                *arrays, partial, N, C, *numbers, bucket(N, C), *options, alignment(input, target)
            )
        else:
            cross_entropy_forward_tile_kernel[(programs,)](
                *arrays, partial, N, *numbers, C, *options, packed, partial is None, rows,
                _block(C), num_warps=8 if probabilities else 4,
            )  # fmt: skip
        if partial is not None:
            block, warps = (1024, 4) if programs <= 1024 else (4096, 8)
            cross_entropy_finish_kernel[(1,)](
                partial, loss, total, programs, N, reduction, probabilities, block, num_warps=warps
            )
    return loss, lse, total


def cross_entropy_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    total_weight: Tensor,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
) -> Tensor:
    """See ``mlpkern.reference.cross_entropy``; a target out of range makes its row NaN."""
    N, C = input.shape
    grad = torch.empty((N, C), dtype=input.dtype, device=input.device)
    if N == 0:
        return grad
    probabilities = target.is_floating_point()
    # The sum of what smoothing adds to the weights of a row, if that is no number known here.
    spread = None
    if weight is not None and label_smoothing and not probabilities:
        spread = weight.sum(dtype=torch.float32)
    lse = lse.contiguous()
    packed = input.is_contiguous() and (not probabilities or target.is_contiguous())
    arrays = (
        grad_output, grad_output.stride(0) if reduction == NONE else 0,
        input, input.stride(0), input.stride(1),
        target, target.stride(0), target.stride(1) if probabilities else 0,
        None if weight is None else weight.contiguous(), spread,
        lse, total_weight, grad,
    )  # fmt: skip
    numbers = (ignore_index, 1 - label_smoothing, label_smoothing / C, bucket(N, C))
    options = (reduction, probabilities, label_smoothing != 0)
    with device_guard(input):
        # Only with probabilities is something added up, in an order that a configuration sets.
        if C >= WIDE:
            align = alignment(input, target)

            def pieces(meta: dict[str, int]) -> tuple[int]:
                blocks = triton.cdiv(C + max(align - 1, 0), meta["BLOCK"])
                return (N if probabilities else N * blocks,)

            launch = wide_backward.first if probabilities else wide_backward
            launch[pieces](*arrays, N, C, *numbers, *options, align)
        else:
            block = _block(C)
            launch = tile_backward.first if probabilities else tile_backward
            launch[lambda meta: (triton.cdiv(N, max(meta["TILE"] // block, 1)),)](
                *arrays, N, *numbers, C, *options, packed, block
            )
    return grad


def _block(classes: int) -> int:
    return triton.next_power_of_2(classes)


def _tile_rows(rows: int, classes: int) -> int:
    """The rows of a tile of the forward; the order of the sums follows from it."""
    most = (1 << 18 if interpreted() else TILE) // _block(classes)
    fill = rows if interpreted() else triton.cdiv(rows, PROGRAMS)
    return max(min(triton.next_power_of_2(max(fill, FEWEST_ROWS)), most), 1)
