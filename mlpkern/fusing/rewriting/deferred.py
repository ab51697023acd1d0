"""What a rewritten method calls: a layer is deferred until the next function, to run as one op.

Nothing is assumed about layers, inputs and functions: whenever a call is not the plain case, the
calls of the original source are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mlpkern.functional as ops
from mlpkern.checks import FLOATS, PLAIN
from mlpkern.fusing.rewriting.guards import plain, usual

_CROSS_ENTROPY = F.cross_entropy  # torch's own, should another library replace it later


def linear(layer: Any, input: Any) -> Any:
    """``layer(input)``, deferred if a tanh after it can make one op of both."""
    if type(layer) is nn.Linear and plain(layer, input) and input.is_floating_point():
        return _Linear(layer, input)
    return layer(input)


def rows(layer: Any, input: Any) -> Any:
    """``layer(input)``, deferred if a flatten after it can make one op of both."""
    if (
        type(layer) is nn.Embedding
        and plain(layer, input)
        and layer.max_norm is None
        and not (layer.scale_grad_by_freq or layer.sparse)
        and input.dtype in (torch.int64, torch.int32)
        and input.ndim > 0
    ):
        return _Rows(layer, input)
    return layer(input)


def apply(function: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """``function(value, ...)`` for a value of `linear` or `rows`, which may be deferred."""
    if type(value) in (_Linear, _Rows, _Columns):
        for known, method in value.FUSED_WITH:
            if function is known:
                return method(value, *args, **kwargs)
        value = value.now()
    return function(value, *args, **kwargs)


def loss(function: Any) -> Any:
    """``function``, or `cross_entropy` below if it is torch's."""
    return cross_entropy if function is _CROSS_ENTROPY else function


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """``F.cross_entropy`` by the fused op."""
    if (
        usual(input)
        and type(target) is Tensor
        and (weight is None or type(weight) in PLAIN)
        and size_average is None
        and reduce is None
        and input.dtype in FLOATS
        and (target.dtype is torch.int64 or target.dtype in FLOATS)
    ):
        return ops.cross_entropy(
            input,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    return _CROSS_ENTROPY(
        input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing
    )


class _Linear:
    """The deferred call of an ``nn.Linear``."""

    __slots__ = ("input", "layer")

    def __init__(self, layer: nn.Linear, input: Tensor) -> None:
        self.layer = layer
        self.input = input

    def now(self) -> Tensor:
        output: Tensor = self.layer(self.input)
        return output

    def tanh(self) -> Tensor:
        held = self.layer._parameters
        weight, bias = held["weight"], held["bias"]
        assert weight is not None
        return ops.linear_tanh(self.input, weight, bias)

    tanh_ = tanh
    FUSED_WITH: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
        (torch.tanh, tanh),
        (F.tanh, tanh),
        (torch.tanh_, tanh),
    )


class _Rows:
    """The deferred call of an ``nn.Embedding`` on (..., T) ids; its output e is (..., T, D)."""

    __slots__ = ("input", "layer")

    def __init__(self, layer: nn.Embedding, input: Tensor) -> None:
        self.layer = layer
        self.input = input

    def now(self) -> Tensor:
        output: Tensor = self.layer(self.input)
        return output

    def gather(self) -> Tensor:
        """``e.flatten(-2)``"""
        weight = self.layer._parameters["weight"]
        assert weight is not None
        return ops.embedding_gather(self.input, weight, padding_idx=self.layer.padding_idx)

    @property
    def shape(self) -> torch.Size:
        weight = self.layer._parameters["weight"]
        assert weight is not None
        return self.input.shape + weight.shape[1:]

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return len(self.input)

    def view(self, *sizes: Any) -> Tensor:
        """Both e and the gather are contiguous: each view of one is a view of the other."""
        flat = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        if self.input.numel() == 0 or not all(type(size) is int for size in flat):
            return self.now().view(*sizes)
        gathered = self.gather()
        if gathered.ndim == 2:
            n, width = gathered.shape
            if tuple(flat) in ((n, -1), (-1, width), (n, width)):
                return gathered
        return gathered.view(flat)

    reshape = view

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        last = self.input.ndim  # of e
        if start_dim in (last - 1, -2) and end_dim in (last, -1):
            return self.gather()
        return self.now().flatten(start_dim, end_dim)

    def unbind(self, dim: int = 0) -> Any:
        if self.input.ndim == 2 and self.input.shape[1] and dim in (1, -2):
            return _Columns(self)
        return self.now().unbind(dim)

    FUSED_WITH: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
        (torch.flatten, flatten),
        (torch.reshape, reshape),
        (torch.unbind, unbind),
    )


class _Columns:
    """``e.unbind(1)``, deferred: the embeddings of the first, second, … id of each row."""

    __slots__ = ("rows",)

    def __init__(self, rows: _Rows) -> None:
        self.rows = rows

    def now(self) -> Any:
        return self.rows.now().unbind(1)

    def cat(self, dim: int = 0) -> Tensor:
        return self.rows.gather() if dim in (1, -1) else torch.cat(self.now(), dim)

    FUSED_WITH: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
        (torch.cat, cat),
        (torch.concat, cat),
        (torch.concatenate, cat),
    )
