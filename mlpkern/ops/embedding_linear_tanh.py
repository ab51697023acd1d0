"""``embedding_linear_tanh``: lookup, linear layer and its tanh in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function

from mlpkern.checks import (
    PLAIN,
    require_float,
    require_integer,
    require_linear,
    require_same_device,
    require_tensor,
    shape,
)
from mlpkern.ops.autocast import any_autocast, cast, linear_dtype
from mlpkern.ops.function import OpFunction, plain_torch_needed
from mlpkern.ops.library import define, define_autograd
from mlpkern.ops.routing import COMPOSED, LIBRARY, ordinary, route, stands_for_tensor
from mlpkern.reference import embedding_linear_tanh_backward as reference_backward
from mlpkern.reference.embedding_linear_tanh import embedding_linear_tanh as reference
from mlpkern.registry import select
from mlpkern.tracing.fused_steps import computes

_OP = "embedding_linear_tanh"


@computes("embedding", "join", "linear", "tanh")
def embedding_linear_tanh(
    input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The activations tanh(x · weightᵀ + bias) of the embedded contexts x, (..., H).

    Equals ``torch.tanh(F.linear(F.embedding(input, embedding).flatten(-2), weight, bias))``. The
    embedded batch is never stored; only the output is kept for the backward.

    Args:
        input: (..., T) ids, uint8, int16, int32 or int64, each 0 <= id < V; any strides.
        embedding: (V, D) table, float32, float64, bfloat16 or float16, on the device of ``input``.
        weight: (H, T*D), dtype and device of ``embedding``.
        bias: (H,), dtype and device of ``embedding``, or None.

    Under autocast the table, weight and bias are cast as ``F.linear`` casts its arguments.

    Raises:
        TypeError: a wrong dtype, or not a tensor.
        ValueError: a wrong shape or device.
        IndexError: an id outside [0, V), with its position.
    """
    if (
        not is_compiling()
        and type(input) is Tensor
        and type(embedding) in PLAIN
        and type(weight) in PLAIN
        and (bias is None or type(bias) in PLAIN)
        and ordinary()
        and not any_autocast()
        and not (embedding.is_meta or embedding.is_neg() or weight.is_neg())
        and not (bias is not None and bias.is_neg())
    ):
        with_grad = is_grad_enabled() and (
            weight.requires_grad
            or embedding.requires_grad
            or (bias is not None and bias.requires_grad)
        )
        try:
            run = EmbeddingLinearTanh.direct if with_grad else _forward
            return run(input, embedding, weight, bias)
        except (TypeError, ValueError):
            pass  # refused by the backend; now find out why
    return _checked(input, embedding, weight, bias)


class EmbeddingLinearTanh(OpFunction):
    """``EmbeddingLinearTanh.apply(input, embedding, weight, bias)``; bias may be None."""

    composed = staticmethod(reference)

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.kernels = kernels = select(_OP, embedding)
        if not kernels.CHECKS_ARGUMENTS:
            _check(input, embedding, weight, bias)
        output = kernels.embedding_linear_tanh_forward(input, embedding, weight, bias)
        ctx.save_for_backward(input, embedding, weight, output)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return None, None, None, None
        input, embedding, weight, output = ctx.saved_tensors
        if plain_torch_needed(grad_output):
            backward = reference_backward
        else:
            backward = ctx.kernels.embedding_linear_tanh_backward
            if grad_output.is_neg():
                grad_output = grad_output.resolve_neg()
        needs = ctx.needs_input_grad[1:]
        return None, *backward(grad_output, input, embedding, weight, output, *needs)


def _forward(input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The output without a graph."""
    kernels = select(_OP, embedding)
    if not kernels.CHECKS_ARGUMENTS:
        _check(input, embedding, weight, bias)
    return kernels.embedding_linear_tanh_forward(input, embedding, weight, bias)


def _checked(input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Everything but the common case: say what is wrong, or take the way the call needs."""
    tensors = (input, embedding, weight, bias)
    if stands_for_tensor(*tensors):
        return handle_torch_function(embedding_linear_tanh, tensors, *tensors)
    named = ("input", input), ("embedding", embedding), ("weight", weight), ("bias", bias)
    for name, value in named:
        if value is not None or name != "bias":
            require_tensor(_OP, name, value)
    dtype = linear_dtype(embedding)
    embedding, weight = cast(embedding, dtype), cast(weight, dtype)
    bias = None if bias is None else cast(bias, dtype)
    _check(input, embedding, weight, bias)
    way = route(input, embedding, weight, bias)
    if way is LIBRARY:
        return torch.ops.mlpkern.embedding_linear_tanh(input, embedding, weight, bias)
    if way is COMPOSED:
        return reference(input, embedding, weight, bias)
    return EmbeddingLinearTanh.apply(input, embedding, weight, bias)


def _check(input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise what the docstring of the op announces; the ids are the backend's."""
    require_integer(_OP, "input", input)
    require_float(_OP, "embedding", embedding)
    if embedding.dim() != 2:
        raise ValueError(f"{_OP}: embedding must be (V, D), got {shape(embedding)}")
    if input.dim() == 0:
        raise ValueError(f"{_OP}: input must be (..., T), got a tensor without dimensions")
    require_same_device(_OP, "embedding", embedding, "input", input)
    width = input.shape[-1] * embedding.shape[1]
    require_linear(_OP, weight, bias, width, {"input": input, "embedding": embedding})


# torch.library: what a tracer sees.


class _Library:
    """The ops of torch.library with the names of a backend, for the backward of the traced op."""

    @staticmethod
    def embedding_linear_tanh_backward(*args: Any) -> tuple[Tensor | None, ...]:
        gradients = torch.ops.mlpkern.embedding_linear_tanh_backward(*args)
        return tuple(g if need else None for g, need in zip(gradients, args[-3:], strict=True))


def _run(input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    offset = None if bias is None else bias.resolve_neg()
    forward = select(_OP, embedding).embedding_linear_tanh_forward
    return forward(input, embedding.resolve_neg(), weight.resolve_neg(), offset)


def _run_backward(
    grad_output: Tensor,
    input: Tensor,
    embedding: Tensor,
    weight: Tensor,
    output: Tensor,
    *needs: bool,
) -> tuple[Tensor, ...]:
    tensors = (t.resolve_neg() for t in (grad_output, input, embedding, weight, output))
    gradients = select(_OP, embedding).embedding_linear_tanh_backward(*tensors, *needs)
    return tuple(weight.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _fake(input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return embedding.new_empty(*input.shape[:-1], weight.shape[0])


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    embedding: Tensor,
    weight: Tensor,
    output: Tensor,
    *needs: bool,
) -> tuple[Tensor, ...]:
    shapes = (embedding.shape, weight.shape, weight.shape[:1])
    return tuple(
        weight.new_empty(size if need else (0,)) for size, need in zip(shapes, needs, strict=True)
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.kernels = _Library
    ctx.save_for_backward(*inputs[:3], output)
    ctx.set_materialize_grads(False)


define(_OP, "Tensor input, Tensor embedding, Tensor weight, Tensor? bias", "Tensor", _run, _fake)
define(  # a gradient that is not needed comes back empty: a schema has no optional results
    f"{_OP}_backward",
    "Tensor grad_output, Tensor input, Tensor embedding, Tensor weight, Tensor output, "
    "bool need_embedding, bool need_weight, bool need_bias",
    "(Tensor, Tensor, Tensor)",
    _run_backward,
    _fake_backward,
)
define_autograd(_OP, EmbeddingLinearTanh.backward, _setup_context)
