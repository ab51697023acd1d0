"""curves.csv of a sweep: the loss curve of every trial, a row for each of its points.

>>> import torch
>>> curve_rows(7, Curve(torch.tensor([2.5, 2.25]), every=50), {100: 2.3})
[[7, 50, '2.500000', ''], [7, 100, '2.250000', '2.300000']]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlpkern.lm.atomic_write import csv_text, write_bytes
from mlpkern.lm.many.loss_curve import Curve

COLUMNS = ["trial", "step", "train_loss", "dev_loss"]
MOST_POINTS = 200  # of a trial


def curve_rows(trial: int, curve: Curve, dev: Mapping[int, float]) -> list[list[Any]]:
    """The rows of a trial: mean train losses up to each step, and the dev losses at its rungs.

    ``dev``: step -> dev loss; the last step is the last of the trial.
    """
    last = max(dev)
    train = {min((k + 1) * curve.every, last): loss for k, loss in enumerate(curve.losses.tolist())}
    return [
        [trial, step, *(f"{part[step]:.6f}" if step in part else "" for part in (train, dev))]
        for step in sorted({*train, *dev})
    ]


def add_curves(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Replaces the file ``path`` by one with ``rows`` at the end; one process at a time may."""
    before = path.read_bytes() if path.is_file() else csv_text([COLUMNS]).encode()
    write_bytes(path, before + csv_text(rows).encode())
