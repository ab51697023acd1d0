"""Mean loss and accuracy of a model over a whole split."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import mlpkern
from mlpkern.lm.errors import DataError
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.words.data import Split

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

    With ``kernels="fused"``, where the engine `run` applies, it is one call of `mlpkern.evaluate`.
    Else, or with ``batch_size``, the split goes through the model in batches; row losses are summed
    in float64, and ``batch_size`` only bounds the memory (by default it follows from the
    vocabulary).
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
    size = batch_size or max(1, MAX_LOGITS // model.vocab_size)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    for inputs, targets in zip(split.inputs.split(size), split.targets.split(size), strict=True):
        logits = model(inputs)  # (size, V)
        loss += model.loss_of_logits(logits, targets, reduction="none").sum(dtype=torch.float64)
        hits += (logits.argmax(-1) == targets).sum()
    return Metrics(loss.item() / rows, hits.item() / rows, rows)
