"""The parameters of an MLP as a list: the names of its tensors, and which shapes fit together.

The list is embedding, then weight and bias of each hidden layer, then of the output layer. Sizes: V
ids, T ids a row, D embedding width, H hidden width, C classes, M models side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlpkern.checks import (
    dtype_name,
    require_same_device,
    require_same_dtype,
    require_tensor,
    shape,
)

_DTYPES = (torch.float32, torch.float64)


def layer_names(hidden: int) -> list[str]:
    """embedding, hidden.0.weight, hidden.0.bias, …, output.bias: for ``hidden`` hidden layers."""
    layers = [*(f"hidden.{i}" for i in range(hidden)), "output"]
    return ["embedding", *(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))]


def require_layers(op: str, tensors: list[Tensor]) -> None:
    """Raise unless ``tensors`` are the parameters of an MLP, of one model or with a leading M.

    Raises:
        TypeError: not a dense tensor, or a dtype that is not that of the others.
        ValueError: shapes that do not fit together, several devices, no hidden layer, a size 0.
    """
    hidden = (len(tensors) - 3) // 2
    if hidden < 1:
        raise ValueError(f"{op}: hidden must have at least one (weight, bias), got none")
    if not _alike(tensors):
        _say_what_differs(op, tensors, layer_names(hidden))
    embedding = tensors[0]
    lead, sizes = embedding.shape[:-2], embedding.shape[-2:]
    if len(lead) > 1 or len(sizes) != 2:
        raise ValueError(
            f"{op}: embedding must be (V, D), or (M, V, D) for M models, got {shape(embedding)}"
        )
    width = tensors[1].shape[-1] if tensors[1].dim() else 0
    if sizes[1] == 0 or width == 0 or width % sizes[1]:
        raise ValueError(
            f"{op}: hidden.0.weight must be {_expected(lead, 'H', f'T*{sizes[1]}')} to match "
            f"embedding {shape(embedding)}, got {shape(tensors[1])}"
        )
    for i in range(1, len(tensors), 2):
        weight, bias = tensors[i], tensors[i + 1]
        if weight.dim() != len(lead) + 2 or weight.shape != (*lead, weight.shape[-2], width):
            rows = "C" if i == len(tensors) - 2 else "H"
            raise ValueError(
                f"{op}: {layer_names(hidden)[i]} must be {_expected(lead, rows, width)} to match "
                f"embedding {shape(embedding)} and the layers before, got {shape(weight)}"
            )
        width = weight.shape[-2]
        if bias.shape != weight.shape[:-1]:
            name, before = layer_names(hidden)[i + 1], layer_names(hidden)[i]
            raise ValueError(
                f"{op}: {name} must be {_expected(lead, width)} to match {before} {shape(weight)}, "
                f"got {shape(bias)}"
            )
        if weight.numel() == 0:
            raise ValueError(
                f"{op}: every size must be at least 1, got {layer_names(hidden)[i]} {shape(weight)}"
            )
    if embedding.numel() == 0:
        raise ValueError(f"{op}: every size must be at least 1, got embedding {shape(embedding)}")


def _alike(tensors: list[Tensor]) -> bool:
    """Whether all are dense tensors of one allowed dtype, on one device."""
    first = tensors[0]
    if not isinstance(first, Tensor) or first.dtype not in _DTYPES:
        return False
    dtype, device = first.dtype, first.device
    return all(
        isinstance(t, Tensor)
        and t.dtype is dtype
        and t.device == device
        and t.layout is torch.strided
        for t in tensors
    )


def _say_what_differs(op: str, tensors: list[Tensor], names: list[str]) -> None:
    for name, tensor in zip(names, tensors, strict=True):
        require_tensor(op, name, tensor)
        if tensor.dtype not in _DTYPES:
            raise TypeError(f"{op}: {name} must be float32 or float64, got {dtype_name(tensor)}")
        require_same_dtype(op, name, tensor, "embedding", tensors[0])
        require_same_device(op, name, tensor, "embedding", tensors[0])


def _expected(lead: Sequence[int], *sizes: Any) -> str:
    """``(200, 30)``, or with a leading M ``(8, 200, 30)``, for a message."""
    text = ", ".join(map(str, (*lead, *sizes)))
    return f"({text},)" if len(lead) + len(sizes) == 1 else f"({text})"
