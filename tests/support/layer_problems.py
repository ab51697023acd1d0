"""The layers in stock torch, the yardstick of their tests, and inputs for the fused pair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
