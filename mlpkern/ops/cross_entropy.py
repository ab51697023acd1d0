"""``cross_entropy``: the loss of logits against class ids or probabilities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function

from mlpkern.checks import PLAIN, require_same_dtype
from mlpkern.ops.autocast import any_autocast, cast, loss_dtype
from mlpkern.ops.cross_entropy_arguments import REDUCTIONS, check, check_rows
from mlpkern.ops.cross_entropy_function import CrossEntropy
from mlpkern.ops.library import define, define_autograd
from mlpkern.ops.routing import (
    COMPOSED,
    LIBRARY,
    needs_weight_gradient,
    ordinary,
    route,
    stands_for_tensor,
)
from mlpkern.reference.bounds import check_ids
from mlpkern.reference.cross_entropy import cross_entropy as reference
from mlpkern.reference.precision import wide
from mlpkern.registry import select

_OP = "cross_entropy"


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of logits and targets: 0-d, or one loss per target for "none".

    Equals ``F.cross_entropy`` of the same arguments, which also says what each of them means.

    Args:
        input: logits (C,), (N, C) or (N, C, d1, ...), float32, float64, bfloat16 or float16; any
            strides; never overwritten. On a CPU, in float32 and float64 and with a mean or a sum,
            they may be changed in place before the backward; else that is a RuntimeError, unless
            a clone was passed.
        target: class ids (), (N,) or (N, d1, ...), uint8, int16, int32 or int64, each
            0 <= target < C or ``ignore_index``; or probabilities of the shape of ``input``, of any
            of the floating dtypes.
        weight: (C,) class weights of the dtype of ``input``, or None for ones.
        ignore_index: targets with this value count for nothing. Not with probabilities.
        reduction: "mean" (over the weights of the targets that count; nan if none does), "sum" or
            "none".
        label_smoothing: 0 <= label_smoothing <= 1, the part of each target spread over all classes.

    Under autocast it computes in float32. If ``weight`` requires a gradient, the op runs as plain
    torch, which gives one.

    Raises:
        TypeError: a wrong dtype, or not a tensor.
        ValueError: a wrong shape, device or option.
        IndexError: a target outside [0, C) that is not ``ignore_index``, with its position.
    """
    if (
        not is_compiling()
        and type(input) in PLAIN
        and type(target) is Tensor
        and weight is None
        and input.ndim == 2
        and target.ndim == 1
        and ordinary()
        and not any_autocast()
        and not (input.is_meta or input.is_neg())
        and type(ignore_index) is int
        and reduction in REDUCTIONS
        and type(label_smoothing) is float
        and 0.0 <= label_smoothing <= 1.0
    ):
        with_grad = input.requires_grad and is_grad_enabled()
        options = (ignore_index, REDUCTIONS[reduction], label_smoothing)
        try:
            return (CrossEntropy.direct if with_grad else _forward)(input, target, None, *options)
        except (TypeError, ValueError):
            pass  # refused by the backend; now find out why
    return _checked(input, target, weight, ignore_index, reduction, label_smoothing)


def _forward(input: Tensor, target: Tensor, weight: Tensor | None, *options: Any) -> Tensor:
    """The loss without a graph."""
    kernels = select(_OP, input)
    if not kernels.CHECKS_ARGUMENTS:
        check_rows(input, target, weight)
    return kernels.cross_entropy_forward(input, target, weight, *options)[0]


def _checked(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """Everything but the common case: say what is wrong, or bring the arguments to rows."""
    tensors = (input, target, weight)
    if stands_for_tensor(*tensors):
        return handle_torch_function(
            cross_entropy,
            tensors,
            *tensors,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    check(input, target, weight, ignore_index, reduction, label_smoothing)
    options = (int(ignore_index), REDUCTIONS[reduction], float(label_smoothing))
    probabilities = target.is_floating_point()
    rows, targets = _rows(input), _rows(target) if probabilities else target.reshape(-1)
    dtype = loss_dtype(input)
    rows, targets = cast(rows, dtype), cast(targets, dtype)
    if weight is not None:
        weight = cast(weight, dtype)
        require_same_dtype(_OP, "weight", weight, "input", rows)
    if probabilities and rows.dtype != targets.dtype:
        common = torch.promote_types(rows.dtype, targets.dtype)
        rows, targets = rows.to(common), targets.to(common)
        weight = None if weight is None else weight.to(common)
    way = route(rows, targets, weight)
    if way is LIBRARY:
        loss = torch.ops.mlpkern.cross_entropy(rows, targets, weight, *options)[0]
    elif way is COMPOSED or needs_weight_gradient(weight):
        loss = reference(rows, targets, weight, *options)
    else:
        try:
            loss = CrossEntropy.apply(rows, targets, weight, *options)
        except IndexError:
            if target.dim() != 1:  # give the position in the caller's target, not in the rows
                check_ids(
                    _OP,
                    "target",
                    target,
                    input.shape[min(1, input.dim() - 1)],
                    noun="target",
                    ignore_index=options[0],
                )
            raise
    if reduction != "none" or input.dim() == 2:
        return loss
    return loss.reshape(input.shape[:1] + input.shape[2:] if input.dim() > 2 else ())


def _rows(tensor: Tensor) -> Tensor:
    """(C,), (N, C) or (N, C, d1, ...) as rows (N * d1 * ..., C)."""
    if tensor.dim() == 1:
        return tensor.unsqueeze(0)
    if tensor.dim() == 2:
        return tensor
    return tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


# torch.library: what a tracer sees.


class _Library:
    """The ops of torch.library with the names of a backend, for the backward of the traced op."""

    @staticmethod
    def cross_entropy_backward(*args: Any) -> Tensor:
        return torch.ops.mlpkern.cross_entropy_backward(*args)


def _resolved(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if tensor is None else tensor.resolve_neg() for tensor in tensors)


def _run(
    input: Tensor, target: Tensor, weight: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    forward = select(_OP, input).cross_entropy_forward
    return forward(*_resolved(input, target, weight), *options)


def _run_backward(
    grad_output: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    total_weight: Tensor,
    *options: Any,
) -> Tensor:
    backward = select(_OP, input).cross_entropy_backward
    return backward(*_resolved(grad_output, input, target, weight, lse, total_weight), *options)


def _fake(
    input: Tensor, target: Tensor, weight: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    loss = input.new_empty(input.shape[:1] if options[1] == REDUCTIONS["none"] else ())
    dtype = wide(input.dtype)
    return loss, input.new_empty(2, input.shape[0], dtype=dtype), input.new_empty((), dtype=dtype)


def _fake_backward(grad_output: Tensor, input: Tensor, *_: Any) -> Tensor:
    return input.new_empty(input.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.kernels = _Library
    ctx.options = inputs[3:]
    ctx.scales = False
    ctx.save_for_backward(*inputs[:3], *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


_OPTIONS = "SymInt ignore_index, int reduction, float label_smoothing"
define(
    _OP,
    f"Tensor input, Tensor target, Tensor? weight, {_OPTIONS}",
    "(Tensor loss, Tensor lse, Tensor total_weight)",
    _run,
    _fake,
)
define(
    f"{_OP}_backward",
    "Tensor grad_output, Tensor input, Tensor target, Tensor? weight, Tensor lse, "
    f"Tensor total_weight, {_OPTIONS}",
    "Tensor",
    _run_backward,
    _fake_backward,
)
define_autograd(_OP, CrossEntropy.backward, _setup_context)
