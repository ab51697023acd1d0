"""Rows of a split one by one: their logits in batches, and the loss of each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.training.evaluation import MAX_LOGITS
from mlpkern.lm.words.data import Split

__all__ = ["row_logits", "row_losses"]


@torch.no_grad()
def row_logits(model: MLPLanguageModel, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of ``split``, which lies on the model's device: logits (n, V) and targets (n,)."""
    size = max(1, MAX_LOGITS // model.vocab_size)
    for inputs, targets in zip(split.inputs.split(size), split.targets.split(size), strict=True):
        yield model(inputs), targets


@torch.no_grad()
def row_losses(model: MLPLanguageModel, split: Split) -> Tensor:
    """The cross-entropy of every row (N,) in nats, float64, on the CPU."""
    losses = [
        model.loss_of_logits(logits, targets, reduction="none").double().cpu()
        for logits, targets in row_logits(model, split)
    ]
    return torch.cat(losses) if losses else torch.empty(0, dtype=torch.float64, device="cpu")
