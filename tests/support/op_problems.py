"""The ops in stock torch, the yardstick of their tests, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import mlpkern

REDUCTIONS = ["none", "mean", "sum"]


def stock_gather(ids: Tensor, table: Tensor, padding_idx: int | None = None) -> Tensor:
    return F.embedding(ids.long(), table, padding_idx).flatten(-2)


def stock_linear_tanh(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.tanh(F.linear(input, weight, bias))


def stock_pair(ids: Tensor, table: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return stock_linear_tanh(stock_gather(ids, table), weight, bias)


def pair_problem(size, device, dtype=torch.float32, ids_dtype=torch.int64):
    """Ids, table, weight and bias for ``size``: the shape of the ids, V, D, H."""
    shape, rows, width, h = size
    k = shape[-1] * width
    ids = torch.randint(0, rows, shape).to(device, ids_dtype)
    tensors = torch.randn(rows, width), torch.randn(h, k) / k**0.5, torch.randn(h)
    return ids, *(tensor.to(device, dtype) for tensor in tensors)


def stock_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, **options) -> Tensor:
    if not target.is_floating_point():
        target = target.long()
    return F.cross_entropy(input, target, weight, **options)


def loss_problem(size, device, dtype=torch.float32):
    """Logits of the given size (N, C, ...) and class ids."""
    logits = (3 * torch.randn(*size)).to(device, dtype)
    return logits, torch.randint(0, size[1], size[:1] + size[2:], device=device)


def probabilities(logits):
    """Targets for these logits that are probabilities of the classes."""
    return torch.rand(logits.shape, device=logits.device).softmax(1).to(logits.dtype)


def checked(function: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of the call, or its IndexError for an id out of range on any backend.

    A CPU kernel raises it at once; kernels of CUDA and Triton leave it to ``check_errors``.
    """
    result = function(*args, **kwargs)
    mlpkern.check_errors()
    return result
