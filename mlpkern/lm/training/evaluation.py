"""The loss and accuracy of a model over a split or a sample of it, and the loss of each row.

A row costs about V H multiply-adds, and V exponentials: 50 to 150 µs at V = 10,000 on one core,
so a million rows take a minute or two. Calls of 128 million logits, a second each, are as fast as
one call for all rows (within the 10 % that such a measurement varies by), and show how far it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import mlpkern
from mlpkern.lm.arguments import check_kind
from mlpkern.lm.errors import DataError
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.training.progress import rows_progress
from mlpkern.lm.words.data import Split

# logits of one batch: 8 MB of float32, which stays in the cache of a server core
MAX_LOGITS = 2_000_000
FEW_ROWS = 1_000  # below which a mean loss is marked, with its standard error
CALL_LOGITS = 1 << 27  # of one call; an evaluation of more is long, and may be shown
# of a sample: some ten seconds of work, and rows enough for a standard error of about 0.01
SAMPLE_ROWS, SAMPLE_LOGITS = 100_000, 1_000_000_000


@dataclass(frozen=True)
class Metrics:
    """``loss``: mean cross-entropy in nats; ``accuracy``: share of rows predicted right."""

    loss: float
    accuracy: float
    rows: int


@torch.no_grad()
def evaluate(
    model: MLPLanguageModel,
    split: Split,
    *,
    batch_size: int | None = None,
    shown_as: str | None = None,
) -> Metrics:
    """The metrics of ``model`` over all rows of ``split``, which lies on the model's device.

    Args:
        batch_size: rows of logits at a time, to bound the memory; None: from the vocabulary.
        shown_as: the name of a split whose progress standard error shows if it is long: a bar on a
            terminal, else a line. None: nothing is shown.

    With ``kernels="fused"``, where the engine `run` applies, these are calls of `mlpkern.evaluate`.
    Else, or with ``batch_size``, the split goes through the model in batches, and the row losses
    are summed in float64.
    """
    check_kind("evaluate", "model", model, torch.nn.Module, "as load_model returns it")
    check_kind("evaluate", "split", split, Split, 'as in dataset.splits["dev"]')
    rows = len(split)
    if rows == 0:
        raise DataError("evaluate: the split has no rows")
    fused = model.kernels == "fused" and batch_size is None
    fused = fused and RunEngine.unavailable(split.targets.device) is None
    size = max(1, CALL_LOGITS // model.vocab_size)
    loss = hits = 0.0
    with rows_progress(shown_as if rows > size else None, rows) as advance:
        for part in _parts(split, size):
            part_loss, part_hits = (
                _fused_sums(model, part) if fused else _sums(model, part, batch_size)
            )
            loss, hits = loss + part_loss, hits + part_hits
            advance(len(part))
    return Metrics(loss / rows, hits / rows, rows)


def sampled(split: Split, vocab_size: int) -> Split:
    """The rows of ``split`` that stand for it where it is large, always the same ones: 100,000, or
    with a small vocabulary as many as have 10^9 logits. A split with no more is returned whole."""
    most = max(SAMPLE_ROWS, SAMPLE_LOGITS // vocab_size)
    if len(split) <= most:
        return split
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(0), device="cpu")
    rows = drawn[:most].sort().values.to(split.targets.device)
    return Split(split.inputs[rows], split.targets[rows])


def _fused_sums(model: MLPLanguageModel, split: Split) -> tuple[float, float]:
    """The sum of the losses, and the number of right predictions, in one call."""
    params = mlpkern.MLPParams.from_module(model)
    both = mlpkern.evaluate(params, split.inputs, split.targets)
    return both.loss.item() * len(split), both.accuracy.item() * len(split)


def _sums(model: MLPLanguageModel, split: Split, batch_size: int | None) -> tuple[float, float]:
    """The same in batches."""
    device = split.targets.device
    loss = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    for logits, targets in row_logits(model, split, batch_size):
        loss += model.loss_of_logits(logits, targets, reduction="none").sum(dtype=torch.float64)
        hits += (logits.argmax(-1) == targets).sum()
    return loss.item(), hits.item()


@torch.no_grad()
def row_logits(
    model: MLPLanguageModel, split: Split, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of ``split``, on the model's device, in batches: logits (n, V), targets (n,)."""
    for part in _parts(split, batch_size or max(1, MAX_LOGITS // model.vocab_size)):
        yield model(part.inputs), part.targets


@torch.no_grad()
def row_losses(model: MLPLanguageModel, split: Split) -> Tensor:
    """The cross-entropy of every row (N,) in nats, float64, on the CPU."""
    losses = [
        model.loss_of_logits(logits, targets, reduction="none").double().cpu()
        for logits, targets in row_logits(model, split)
    ]
    return torch.cat(losses) if losses else torch.empty(0, dtype=torch.float64, device="cpu")


def standard_error(losses: np.ndarray) -> float:
    """By how much the mean of ``losses`` (N,) differs from that of ever more rows, typically; nan
    for a single row."""
    count = len(losses)
    return float(losses.std(ddof=1)) / count**0.5 if count > 1 else float("nan")


def _parts(split: Split, size: int) -> Iterator[Split]:
    """The rows of ``split`` in order, ``size`` at a time."""
    return map(Split, split.inputs.split(size), split.targets.split(size))
