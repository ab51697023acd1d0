"""``embedding_gather``: rows of a table, written side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, is_grad_enabled
from torch.compiler import is_compiling
from torch.overrides import handle_torch_function

from mlpkern.checks import (
    PLAIN,
    integer,
    require_float,
    require_integer,
    require_same_device,
    require_tensor,
    shape,
)
from mlpkern.ops.function import OpFunction, plain_torch_needed
from mlpkern.ops.library import define, define_autograd
from mlpkern.ops.routing import COMPOSED, LIBRARY, ordinary, route, stands_for_tensor
from mlpkern.reference import embedding_gather_backward as reference_backward
from mlpkern.reference.embedding_gather import embedding_gather as reference
from mlpkern.registry import select
from mlpkern.tracing.fused_steps import computes

_OP = "embedding_gather"


@computes("embedding", "join")
def embedding_gather(input: Tensor, weight: Tensor, *, padding_idx: int | None = None) -> Tensor:
    """The embedded contexts, (..., T*D): the rows of ``weight`` that ``input`` names, side by side.

    Equals ``F.embedding(input, weight, padding_idx).flatten(-2)``.

    Args:
        input: (..., T) ids, uint8, int16, int32 or int64, each 0 <= id < V; any strides.
        weight: (V, D) table, float32, float64, bfloat16 or float16, on the device of ``input``.
        padding_idx: -V <= padding_idx < V; that row gets no gradient. None: every row does.

    Raises:
        TypeError: a wrong dtype, or not a tensor.
        ValueError: a wrong shape, device or padding_idx.
        IndexError: an id outside [0, V), with its position.
    """
    if (
        not is_compiling()
        and type(input) is Tensor
        and type(weight) in PLAIN
        and padding_idx is None
        and ordinary()
        and not (weight.is_meta or weight.is_neg())
    ):
        try:
            if weight.requires_grad and is_grad_enabled():
                return EmbeddingGather.direct(input, weight, -1)
            return _forward(input, weight)
        except (TypeError, ValueError):
            pass  # refused by the backend; now find out why
    return _checked(input, weight, padding_idx)


class EmbeddingGather(OpFunction):
    """``EmbeddingGather.apply(input, weight, padding_idx)``; padding_idx -1 for none."""

    composed = staticmethod(reference)

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
        ctx.kernels = kernels = select(_OP, weight)
        if not kernels.CHECKS_ARGUMENTS:
            _check(input, weight)
        _keep(ctx, input, weight, padding_idx)
        return kernels.embedding_gather_forward(input, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return None, None, None
        (input,) = ctx.saved_tensors
        rows, width = ctx.table
        if input.shape[-1] == 0:  # no ids: grad_output is (..., 0) and does not tell the width
            return None, grad_output.new_zeros(rows, width), None
        if plain_torch_needed(grad_output):
            return None, reference_backward(grad_output, input, rows, ctx.padding_idx), None
        if grad_output.is_neg():
            grad_output = grad_output.resolve_neg()
        backward = ctx.kernels.embedding_gather_backward
        return None, backward(grad_output, input, rows, ctx.padding_idx), None


def _keep(ctx: Any, input: Tensor, weight: Tensor, padding_idx: int) -> None:
    ctx.save_for_backward(input)
    ctx.set_materialize_grads(False)
    ctx.table = weight.shape
    ctx.padding_idx = padding_idx


def _forward(input: Tensor, weight: Tensor) -> Tensor:
    """The output without a graph."""
    kernels = select(_OP, weight)
    if not kernels.CHECKS_ARGUMENTS:
        _check(input, weight)
    return kernels.embedding_gather_forward(input, weight)


def _check(input: Tensor, weight: Tensor) -> None:
    """Raise what the docstring of ``embedding_gather`` announces; the ids are the backend's."""
    require_tensor(_OP, "input", input)
    require_tensor(_OP, "weight", weight)
    require_integer(_OP, "input", input)
    require_float(_OP, "weight", weight)
    if weight.dim() != 2:
        raise ValueError(f"{_OP}: weight must be (V, D), got {shape(weight)}")
    if input.dim() == 0:
        raise ValueError(f"{_OP}: input must be (..., T), got a tensor without dimensions")
    require_same_device(_OP, "weight", weight, "input", input)


def _checked(input: Tensor, weight: Tensor, padding_idx: int | None) -> Tensor:
    """Everything but the common case: say what is wrong, or take the way the call needs."""
    tensors = (input, weight)
    if stands_for_tensor(*tensors):
        return handle_torch_function(embedding_gather, tensors, *tensors, padding_idx=padding_idx)
    _check(input, weight)
    rows = weight.shape[0]
    padding = -1
    if padding_idx is not None:
        padding_idx = integer(_OP, "padding_idx", padding_idx)
        if not -rows <= padding_idx < rows:
            raise ValueError(
                f"{_OP}: padding_idx must be -{rows} <= padding_idx < {rows} for weight "
                f"{shape(weight)}, got {padding_idx}"
            )
        padding = padding_idx % rows
    way = route(input, weight)
    if way is LIBRARY:
        return torch.ops.mlpkern.embedding_gather(input, weight, padding)
    if way is COMPOSED:
        return reference(input, weight, padding)
    return EmbeddingGather.apply(input, weight, padding)


# torch.library: what a tracer sees.


class _Library:
    """The ops of torch.library with the names of a backend, for the backward of the traced op."""

    @staticmethod
    def embedding_gather_backward(*args: Any) -> Tensor:
        return torch.ops.mlpkern.embedding_gather_backward(*args)


def _run(input: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
    return select(_OP, weight).embedding_gather_forward(input, weight.resolve_neg())


def _run_backward(grad_output: Tensor, input: Tensor, rows: int, padding_idx: int) -> Tensor:
    backward = select(_OP, grad_output).embedding_gather_backward
    return backward(grad_output.resolve_neg(), input, rows, padding_idx)


def _fake(input: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
    return weight.new_empty(*input.shape[:-1], input.shape[-1] * weight.shape[1])


def _fake_backward(grad_output: Tensor, input: Tensor, rows: int, padding_idx: int) -> Tensor:
    return grad_output.new_empty(rows, grad_output.shape[-1] // input.shape[-1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.kernels = _Library
    _keep(ctx, *inputs)


define(_OP, "Tensor input, Tensor weight, int padding_idx", "Tensor", _run, _fake)
define(
    f"{_OP}_backward",
    "Tensor grad_output, Tensor input, SymInt num_embeddings, int padding_idx",
    "Tensor",
    _run_backward,
    _fake_backward,
)
define_autograd(_OP, EmbeddingGather.backward, _setup_context)
