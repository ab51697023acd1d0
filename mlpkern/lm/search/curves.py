"""The loss curve of every trial of a sweep: curves.csv, and runs of TensorBoard.

>>> import torch
>>> curve = Curve(torch.tensor([2.5, 2.25]), every=50)
>>> TrialCurve(7, {}, TrainConfig(steps=200), curve, {100: 2.3}).points()
[(50, 2.5, None), (100, 2.25, 2.3)]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpkern.lm.atomic_write import csv_text, write_bytes
from mlpkern.lm.many.loss_curve import Curve
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.log import LogRow
from mlpkern.lm.training.tensorboard import write_model

COLUMNS = ["trial", "step", "train_loss", "dev_loss"]
MOST_POINTS = 200  # of a trial


@dataclass(frozen=True)
class TrialCurve:
    """A trial that has ended.

    Attributes:
        settings: those that were searched
        curve: the mean train losses up to its last step
        dev: the dev losses at the rungs that it reached, by their steps; the last is its own
    """

    number: int
    settings: Mapping[str, Any]
    config: TrainConfig
    curve: Curve
    dev: Mapping[int, float]

    def points(self) -> list[tuple[int, float | None, float | None]]:
        """(step, mean train loss since the point before, dev loss); None where there is none."""
        last, losses = max(self.dev), enumerate(self.curve.losses.tolist(), 1)
        train = {min(k * self.curve.every, last): loss for k, loss in losses}
        return [(step, train.get(step), self.dev.get(step)) for step in sorted({*train, *self.dev})]

    def write_events(self, folder: Path) -> None:
        """Writes the run of TensorBoard ``folder``, see `write_model`."""
        rates = self.config.learning_rates(0, max(self.dev)).tolist()
        rows, before = [], math.nan
        for step, train, dev in self.points():
            before = before if train is None else train  # at a rung between two points
            rows.append(LogRow(step, rates[step - 1], before, dev, 0.0))
        finite = [row for row in rows if math.isfinite(row.train_loss)]
        write_model(folder, finite, self.settings, {"dev loss": self.dev[max(self.dev)]})


def add_curves(path: Path, trials: Iterable[TrialCurve]) -> None:
    """Replaces curves.csv by one with ``trials`` at the end; one process at a time may."""
    before = path.read_bytes() if path.is_file() else csv_text([COLUMNS]).encode()
    rows = [
        [trial.number, step, *("" if loss is None else f"{loss:.6f}" for loss in losses)]
        for trial in trials
        for step, *losses in trial.points()
    ]
    write_bytes(path, before + csv_text(rows).encode())
