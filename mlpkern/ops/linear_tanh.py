"""``linear_tanh``: a linear layer and its tanh in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function

from mlpkern.checks import PLAIN, require_float, require_linear, require_tensor
from mlpkern.ops.autocast import any_autocast, cast, linear_dtype
from mlpkern.ops.function import OpFunction, plain_torch_needed
from mlpkern.ops.library import define, define_autograd
from mlpkern.ops.routing import COMPOSED, LIBRARY, ordinary, route, stands_for_tensor
from mlpkern.reference import linear_tanh_backward as reference_backward
from mlpkern.reference.linear_tanh import linear_tanh as reference
from mlpkern.registry import select
from mlpkern.tracing.fused_steps import computes

_OP = "linear_tanh"


@computes("linear", "tanh")
def linear_tanh(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The activations tanh(input · weightᵀ + bias), (..., H).

    Equals ``torch.tanh(F.linear(input, weight, bias))``. Only the output is kept for the backward.

    Args:
        input: (..., K), float32, float64, bfloat16 or float16; any strides.
        weight: (H, K), dtype and device of ``input``.
        bias: (H,), dtype and device of ``input``, or None.

    Under autocast the arguments are cast as ``F.linear`` casts them.

    Raises:
        TypeError: a wrong dtype, or not a tensor.
        ValueError: a wrong shape or device.
    """
    if (
        not is_compiling()
        and type(input) in PLAIN
        and type(weight) in PLAIN
        and (bias is None or type(bias) in PLAIN)
        and ordinary()
        and not any_autocast()
        and not (input.is_meta or input.is_neg() or weight.is_neg())
        and not (bias is not None and bias.is_neg())
    ):
        with_grad = is_grad_enabled() and (
            weight.requires_grad or input.requires_grad or (bias is not None and bias.requires_grad)
        )
        try:
            return (LinearTanh.direct if with_grad else _forward)(input, weight, bias)
        except (TypeError, ValueError):
            pass  # refused by the backend; now find out why
    return _checked(input, weight, bias)


class LinearTanh(OpFunction):
    """``LinearTanh.apply(input, weight, bias)``; bias may be None."""

    composed = staticmethod(reference)

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.kernels = kernels = select(_OP, input)
        if not kernels.CHECKS_ARGUMENTS:
            _check(input, weight, bias)
        output = kernels.linear_tanh_forward(input, weight, bias)
        ctx.save_for_backward(input, weight, output)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return None, None, None
        input, weight, output = ctx.saved_tensors
        if plain_torch_needed(grad_output):
            backward = reference_backward
        else:
            backward = ctx.kernels.linear_tanh_backward
            if grad_output.is_neg():
                grad_output = grad_output.resolve_neg()
        return backward(grad_output, input, weight, output, *ctx.needs_input_grad)


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The output without a graph."""
    kernels = select(_OP, input)
    if not kernels.CHECKS_ARGUMENTS:
        _check(input, weight, bias)
    return kernels.linear_tanh_forward(input, weight, bias)


def _checked(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Everything but the common case: say what is wrong, or take the way the call needs."""
    tensors = (input, weight, bias)
    if stands_for_tensor(*tensors):
        return handle_torch_function(linear_tanh, tensors, *tensors)
    for name, value in (("input", input), ("weight", weight), ("bias", bias)):
        if value is not None or name != "bias":
            require_tensor(_OP, name, value)
    dtype = linear_dtype(input)
    input, weight = cast(input, dtype), cast(weight, dtype)
    bias = None if bias is None else cast(bias, dtype)
    _check(input, weight, bias)
    way = route(input, weight, bias)
    if way is LIBRARY:
        return torch.ops.mlpkern.linear_tanh(input, weight, bias)
    if way is COMPOSED:
        return reference(input, weight, bias)
    return LinearTanh.apply(input, weight, bias)


def _check(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise what the docstring of ``linear_tanh`` announces."""
    require_float(_OP, "input", input)
    if input.dim() == 0:
        raise ValueError(f"{_OP}: input must be (..., K), got a tensor without dimensions")
    require_linear(_OP, weight, bias, input.shape[-1], {"input": input})


# torch.library: what a tracer sees.


class _Library:
    """The ops of torch.library with the names of a backend, for the backward of the traced op."""

    @staticmethod
    def linear_tanh_backward(*args: Any) -> tuple[Tensor | None, ...]:
        gradients = torch.ops.mlpkern.linear_tanh_backward(*args)
        return tuple(g if need else None for g, need in zip(gradients, args[-3:], strict=True))


def _run(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    offset = None if bias is None else bias.resolve_neg()
    forward = select(_OP, input).linear_tanh_forward
    return forward(input.resolve_neg(), weight.resolve_neg(), offset)


def _run_backward(
    grad_output: Tensor, input: Tensor, weight: Tensor, output: Tensor, *needs: bool
) -> tuple[Tensor, ...]:
    tensors = (t.resolve_neg() for t in (grad_output, input, weight, output))
    gradients = select(_OP, input).linear_tanh_backward(*tensors, *needs)
    return tuple(input.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _fake(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return input.new_empty(*input.shape[:-1], weight.shape[0])


def _fake_backward(
    grad_output: Tensor, input: Tensor, weight: Tensor, output: Tensor, *needs: bool
) -> tuple[Tensor, ...]:
    shapes = (input.shape, weight.shape, weight.shape[:1])
    return tuple(
        input.new_empty(size if need else (0,)) for size, need in zip(shapes, needs, strict=True)
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.kernels = _Library
    ctx.save_for_backward(inputs[0], inputs[1], output)
    ctx.set_materialize_grads(False)


define(_OP, "Tensor input, Tensor weight, Tensor? bias", "Tensor", _run, _fake)
define(  # a gradient that is not needed comes back empty: a schema has no optional results
    f"{_OP}_backward",
    "Tensor grad_output, Tensor input, Tensor weight, Tensor output, "
    "bool need_input, bool need_weight, bool need_bias",
    "(Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
define_autograd(_OP, LinearTanh.backward, _setup_context)
