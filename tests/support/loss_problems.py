"""The yardstick and the inputs of the tests of ``cross_entropy``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

REDUCTIONS = ["none", "mean", "sum"]


def stock(input: Tensor, target: Tensor, weight: Tensor | None = None, **options) -> Tensor:
    if not target.is_floating_point():
        target = target.long()
    return F.cross_entropy(input, target, weight, **options)


def problem(size, device, dtype=torch.float32):
    logits = (3 * torch.randn(*size)).to(device, dtype)
    return logits, torch.randint(0, size[1], size[:1] + size[2:], device=device)


def probabilities(logits):
    return torch.rand(logits.shape, device=logits.device).softmax(1).to(logits.dtype)
