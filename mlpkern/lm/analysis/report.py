"""The report on a run: its losses beside those of n-grams, where they come from, and a verdict.

>>> from mlpkern import lm
>>> dataset = lm.build_dataset(lm.embedded_names()[:500], block_size=3)
>>> config = lm.TrainConfig(hidden=(16,), steps=300)
>>> trainer = lm.Trainer.start(config, dataset, lm.StockEngine())
>>> trainer.train()
>>> found = lm.report_on(trainer.state.model, dataset, config, [])
>>> found.verdict.kind, found.ngrams[2] < 3.3
('underfit', True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mlpkern.lm.analysis.ngram import MAX_N, ngram
from mlpkern.lm.analysis.verdict import Noise, Verdict, verdict
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.saved.checkpoint import check_vocab, load_checkpoint
from mlpkern.lm.saved.log import LogRow, read_log
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.saved.run_words import dataset_of_run
from mlpkern.lm.training.evaluation import (
    FEW_ROWS,
    Metrics,
    evaluate,
    row_losses,
    standard_error,
)
from mlpkern.lm.words.data import Dataset, Split

LAST_POSITION = 15  # later ones are one group
FEW = 100  # rows, below which a group is marked
LEAST = 5  # rows whose losses tell how much such losses vary


@dataclass(frozen=True)
class Group:
    """Dev rows with a common property: their number, mean loss, its standard error (nan for
    less than 5 rows), and share of the sum of all losses."""

    label: str
    rows: int
    loss: float
    error: float
    share: float

    @property
    def few(self) -> bool:
        """Whether the loss is that of so few rows that it says little."""
        return self.rows < FEW


@dataclass(frozen=True)
class Report:
    """The losses of a run, those of n-grams, and where the loss comes from.

    Attributes:
        splits: loss and accuracy of train, dev and test
        errors: the standard errors of these losses; those of train and test with 1,000 rows or more
            as if their rows varied as much as those of dev
        ngrams: n -> dev loss of the n-grams of the same train words: 2, 3, and up to the context
            of the model
        positions: dev rows by the position of the target in its word
        symbols: dev rows by target, the largest share of the loss first
        rows: the log
    """

    splits: dict[str, Metrics]
    errors: dict[str, float]
    ngrams: dict[int, float]
    positions: list[Group]
    symbols: list[Group]
    verdict: Verdict
    rows: Sequence[LogRow]


def report(
    run: str | Path,
    file: str | None = None,
    data: str | None = None,
    *,
    kernels: str = "fused",
    device: torch.device | str = "cpu",
    checkpoint: str | None = None,
    show: bool = False,
) -> Report:
    """The report on the run in the folder ``run``.

    Args:
        file: a text file with other words than those of the run.
        data: "embedded" or "makemore", likewise.
        checkpoint: the "best" model or the "last"; None: the best if there is one.
        show: show long evaluations on standard error.

    CheckpointError or DataError if the run, its log or its words cannot be read.
    """
    found = load_checkpoint(run, checkpoint=checkpoint)
    rows = read_log(RunFolder.holding(run).log)
    dataset, _ = dataset_of_run(found, file, data)
    check_vocab(found.vocab, dataset.vocab)
    model = found.make_model(kernels).to(device)
    return report_on(model, dataset.to(device), found.config, rows, show=show)


def report_on(
    model: MLPLanguageModel,
    dataset: Dataset,
    config: TrainConfig,
    rows: Sequence[LogRow],
    *,
    show: bool = False,
) -> Report:
    """The report on ``model``, trained with ``config`` on ``dataset``, with the log ``rows``."""
    splits = {
        name: evaluate(model, split, shown_as=name if show else None)
        for name, split in dataset.splits.items()
    }
    dev = dataset.splits["dev"]
    losses = row_losses(model, dev).numpy()
    counted = _ngram_row_losses(dataset, config.block_size)
    ngrams = {n: float(found.mean()) for n, found in counted.items()}
    fair = {n: loss for n, loss in ngrams.items() if n <= config.block_size + 1}
    # losses of train rows, and those of a batch, vary about as much as those of dev rows
    spread = float(losses.std(ddof=1))
    errors = {
        name: standard_error(row_losses(model, split).numpy())
        if len(split) < FEW_ROWS
        else spread / len(split) ** 0.5
        for name, split in dataset.splits.items()
    }
    noise = Noise(
        dev=errors["dev"],
        gap=float(np.hypot(errors["dev"], errors["train"])),
        counts={n: standard_error(losses - found) for n, found in counted.items()},
        batches=spread / (config.log_interval * config.batch_size) ** 0.5,
    )
    return Report(
        splits,
        errors,
        ngrams,
        losses_per_position(losses, dev),
        losses_per_symbol(losses, dev, dataset.vocab.symbols),
        verdict(splits["train"].loss, splits["dev"].loss, rows, ngrams=fair, noise=noise),
        rows,
    )


def losses_per_position(losses: np.ndarray, split: Split) -> list[Group]:
    """The ``losses`` of the rows of ``split``, grouped by the position of the target in its word.

    Position 1 is the first symbol; the boundary after a word of L symbols has position L + 1.
    """
    ends = np.flatnonzero(split.targets.cpu().numpy() == 0)
    if len(losses) and (not len(ends) or ends[-1] != len(losses) - 1):
        ends = np.append(ends, len(losses) - 1)  # a text that ends within a line
    lengths = np.diff(ends, prepend=-1)  # rows of each word
    positions = np.arange(len(losses)) - np.repeat(ends - lengths, lengths)  # from 1
    places = np.minimum(positions, LAST_POSITION + 1)
    labels = [str(i) for i in range(1, LAST_POSITION + 1)] + [f"{LAST_POSITION + 1}+"]
    return _groups(losses, places - 1, labels)


def losses_per_symbol(losses: np.ndarray, split: Split, symbols: Sequence[str]) -> list[Group]:
    """The ``losses`` of the rows of ``split``, grouped by target, the largest share first."""
    groups = _groups(losses, split.targets.cpu().numpy(), symbols)
    return sorted(groups, key=lambda group: -group.share)


def _groups(losses: np.ndarray, places: np.ndarray, labels: Sequence[str]) -> list[Group]:
    """A group for each place that occurs."""
    counts = np.bincount(places, minlength=len(labels))
    sums = np.bincount(places, weights=losses, minlength=len(labels))
    total = max(float(sums.sum()), 1e-300)
    means = sums / np.maximum(counts, 1)
    spreads = np.bincount(places, weights=(losses - means[places]) ** 2, minlength=len(labels))
    return [
        Group(label, int(count), float(mean), _error(spread, count), float(part / total))
        for label, count, part, mean, spread in zip(
            labels, counts, sums, means, spreads, strict=True
        )
        if count
    ]


def _error(spread: float, count: int) -> float:
    """The standard error of a mean of ``count`` values with this sum of squared deviations."""
    return float((spread / (count - 1) / count) ** 0.5) if count >= LEAST else float("nan")


def ngram_losses(dataset: Dataset, block_size: int) -> dict[int, float]:
    """The dev losses of bigrams, trigrams, and longer n-grams up to the context of the model."""
    counted = _ngram_row_losses(dataset, block_size)
    return {n: float(losses.mean()) for n, losses in counted.items()}


def _ngram_row_losses(dataset: Dataset, block_size: int) -> dict[int, np.ndarray]:
    """The same for every dev row (N,)."""
    largest = max(3, min(block_size + 1, MAX_N))
    dataset = dataset.to("cpu")
    dev = dataset.splits_for(max(block_size, largest - 1))["dev"]
    return {n: ngram(dataset, n).row_losses(dev) for n in range(2, largest + 1)}
