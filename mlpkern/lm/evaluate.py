"""Mean loss and accuracy of a model over a whole split."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mlpkern.lm.data import Split
from mlpkern.lm.errors import DataError
from mlpkern.lm.model import MLPLanguageModel

__all__ = ["Metrics", "evaluate"]

# logits of one batch: 8 MB of float32, which stays in the cache of a server core
MAX_LOGITS = 2_000_000


@dataclass(frozen=True)
class Metrics:
    """``loss``: mean cross-entropy in nats; ``accuracy``: share of rows predicted right."""

    loss: float
    accuracy: float
    rows: int


@torch.no_grad()
def evaluate(model: MLPLanguageModel, split: Split, *, batch_size: int | None = None) -> Metrics:
    """The metrics of ``model`` over all rows of ``split``, which lies on the model's device.

    The loss is the mean over rows, whatever the batches: row losses are summed in float64.
    ``batch_size`` only bounds the memory; by default it follows from the vocabulary.
    """
    rows = len(split)
    if rows == 0:
        raise DataError("evaluate: the split has no rows")
    size = batch_size or max(1, MAX_LOGITS // model.vocab_size)
    device = split.targets.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    for inputs, targets in zip(split.inputs.split(size), split.targets.split(size), strict=True):
        logits = model(inputs)  # (size, V)
        loss += model.loss_of_logits(logits, targets, reduction="none").sum(dtype=torch.float64)
        hits += (logits.argmax(-1) == targets).sum()
    return Metrics(loss.item() / rows, hits.item() / rows, rows)
