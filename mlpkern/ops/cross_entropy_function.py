"""The autograd Function of ``cross_entropy``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mlpkern.ops.cross_entropy_arguments import check_rows
from mlpkern.ops.function import OpFunction, plain_torch_needed
from mlpkern.reference.cross_entropy import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_target_gradient,
    row_statistics,
)
from mlpkern.registry import select

_ONES = {t: torch.ones((), dtype=t, device="cpu") for t in (torch.float32, torch.float64)}


class CrossEntropy(OpFunction):
    """``CrossEntropy.apply(input, target, weight, ignore_index, reduction, label_smoothing)``.

    input (N, C); target (N,) or (N, C); weight (C,) or None; reduction 0 none, 1 mean, 2 sum.
    """

    composed = staticmethod(cross_entropy)

    # On a CPU the forward computes the gradient too, for a grad_output of 1: the logits are in the
    # cache, and may change before the backward. Not for "none", whose grad_output is an array; nor
    # in half precision, where it could underflow before grad_output scales it; nor on a GPU, where
    # a look at grad_output waits for the device. A second backward computes it again.

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        ignore_index: int,
        reduction: int,
        label_smoothing: float,
    ) -> Tensor:
        ctx.kernels = kernels = select("cross_entropy", input)
        ctx.options = options = (ignore_index, reduction, label_smoothing)
        if not kernels.CHECKS_ARGUMENTS:
            check_rows(input, target, weight)
        loss, lse, total = kernels.cross_entropy_forward(input, target, weight, *options)
        need_input, need_target = ctx.needs_input_grad[:2]
        ctx.scales = bool(
            need_input and not need_target and reduction and input.is_cpu and input.dtype in _ONES
        )
        if ctx.scales:
            ctx.unit = kernels.cross_entropy_backward(
                _ONES[input.dtype], input, target, weight, lse, total, *options
            )
            ctx.others = (target, weight)
            ctx.versions = _versions(target, weight)
        ctx.save_for_backward(input, target, weight, lse, total)
        ctx.set_materialize_grads(False)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return None, None, None, None, None, None
        if ctx.scales and not plain_torch_needed(grad_output):
            scale = grad_output.item()
            if math.isfinite(scale):
                unit, ctx.unit = ctx.unit, None
                if unit is None or ctx.versions != _versions(*ctx.others):
                    # a second backward; or target or weight changed: saved_tensors raises
                    input, *rest = ctx.saved_tensors
                    one = _ONES[input.dtype]
                    unit = ctx.kernels.cross_entropy_backward(one, input, *rest, *ctx.options)
                return (unit if scale == 1.0 else unit * scale), None, None, None, None, None
        input, target, weight, lse, total = ctx.saved_tensors
        need_input, need_target = ctx.needs_input_grad[:2]
        if plain_torch_needed(grad_output):
            backward = cross_entropy_backward
            lse = row_statistics(input)
        else:
            backward = ctx.kernels.cross_entropy_backward
            if grad_output.is_neg():
                grad_output = grad_output.resolve_neg()
        grad_input = grad_target = None
        if need_input:
            grad_input = backward(grad_output, input, target, weight, lse, total, *ctx.options)
        if need_target:  # of probabilities; rare, so in plain torch on every backend
            grad_target = cross_entropy_target_gradient(
                grad_output, input, weight, lse, total, *ctx.options[1:]
            )
        return grad_input, grad_target, None, None, None, None


def _versions(*tensors: Tensor | None) -> list[int]:
    return [tensor._version for tensor in tensors if tensor is not None]
