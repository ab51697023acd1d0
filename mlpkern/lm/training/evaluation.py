"""The loss and accuracy of a model over a whole split, and the loss of each row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import mlpkern
from mlpkern.lm.errors import DataError
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.words.data import Split

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

    With ``kernels="fused"``, where the engine `run` applies, it is one call of `mlpkern.evaluate`.
    Else, or with ``batch_size``, the split goes through the model in batches, and the row losses
    are summed in float64; ``batch_size`` (by default from the vocabulary) only bounds the memory.
    """
    rows = len(split)
    if rows == 0:
        raise DataError("evaluate: the split has no rows")
    device = split.targets.device
    fused = model.kernels == "fused" and batch_size is None
    if fused and RunEngine.unavailable(device) is None:
        params = mlpkern.MLPParams.from_module(model)
        both = mlpkern.evaluate(params, split.inputs, split.targets)
        return Metrics(both.loss.item(), both.accuracy.item(), rows)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    for logits, targets in row_logits(model, split, batch_size):
        loss += model.loss_of_logits(logits, targets, reduction="none").sum(dtype=torch.float64)
        hits += (logits.argmax(-1) == targets).sum()
    return Metrics(loss.item() / rows, hits.item() / rows, rows)


@torch.no_grad()
def row_logits(
    model: MLPLanguageModel, split: Split, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of ``split``, on the model's device, in batches: logits (n, V), targets (n,)."""
    size = batch_size or max(1, MAX_LOGITS // model.vocab_size)
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
