"""The tables of a population: a row a model, and all loss curves in one file."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlpkern.lm.atomic_write import csv_text, replacing, write_bytes
from mlpkern.lm.errors import MissingPackageError
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.model.config import SETTINGS, TrainConfig
from mlpkern.lm.model.setting import setting_text

RESULTS = (
    "model", *SETTINGS, "dev_loss", "dev_accuracy", "best_dev_loss", "best_step", "train_loss",
    "step", "seconds", "stopped", "diverged",
)  # fmt: skip
CURVES = ("model", "step", "train_loss", "lr")


def write_results(path: Path, models: Mapping[int, Trained]) -> None:
    """Replaces the CSV file ``path``: a row for each of ``models``, with the columns `RESULTS`.

    Settings are written as the command line takes them. ``dev_loss`` and ``dev_accuracy`` are those
    of the last model, ``best_…`` those of the best; ``train_loss`` is the last point of its curve,
    the mean loss of its batches; ``step`` the steps done; ``stopped`` the step whose loss was not
    finite, mostly empty.
    """
    rows: list[list[Any]] = [list(RESULTS)]
    for i, one in sorted(models.items()):
        losses = one.losses[one.losses.isfinite()]
        rows.append(
            [
                i,
                *(setting_text(getattr(one.config, name)) for name in SETTINGS),
                f"{one.dev.loss:.6f}",
                f"{one.dev.accuracy:.6f}",
                f"{one.best.dev.loss:.6f}",
                one.best.step,
                f"{losses[-1].item():.6f}" if len(losses) else "",
                one.state.step,
                f"{one.seconds:.3f}",
                "" if one.stopped is None else one.stopped,
                one.diverged is not None,
            ]
        )
    write_bytes(path, csv_text(rows).encode())


def ranked(models: Mapping[int, Trained]) -> list[int]:
    """The numbers of the models that neither stopped nor diverged, the lowest dev loss of their
    best first."""
    good = [i for i, one in models.items() if one.stopped is None and one.diverged is None]
    return sorted(good, key=lambda i: models[i].best.dev.loss)


def over_seeds(models: Mapping[int, Trained]) -> list[tuple[list[int], float, float]]:
    """Models that differ in their seed alone, the lowest mean dev loss of their best first: their
    numbers, that mean, and the standard deviation; without those that stopped or diverged."""
    alike: dict[TrainConfig, list[int]] = {}
    for i in sorted(ranked(models)):
        alike.setdefault(dataclasses.replace(models[i].config, seed=0), []).append(i)
    found = []
    for numbers in alike.values():
        losses = [models[i].best.dev.loss for i in numbers]
        deviation = statistics.stdev(losses) if len(losses) > 1 else math.nan
        found.append((numbers, statistics.fmean(losses), deviation))
    return sorted(found, key=lambda one: one[1])


class Curves:
    """The loss curves of models in long form, the columns `CURVES`: a row a point.

    model int64, step int64 (of the last step of the point), train_loss float32 (mean of its steps),
    lr float64 (of its last step). A curve ends before a loss that is not finite.
    """

    def __init__(self, models: Mapping[int, Trained]) -> None:
        logs = {i: one.log_rows() for i, one in sorted(models.items())}
        rows = [(i, row.step, row.train_loss, row.lr) for i, log in logs.items() for row in log]
        types = (np.int64, np.int64, np.float32, np.float64)
        columns = zip(*rows, strict=True) if rows else ((),) * len(types)
        self.columns: dict[str, np.ndarray] = {
            name: np.array(values, dtype=dtype)
            for name, values, dtype in zip(CURVES, columns, types, strict=True)
        }

    def write_csv(self, path: Path) -> None:
        """Replaces the CSV file ``path``; numbers have all their digits."""
        # str of float32 is its shortest text; tolist would give that of the float64
        texts = [map(str, column) for column in self.columns.values()]
        write_bytes(path, csv_text([CURVES, *zip(*texts, strict=True)]).encode())

    def write_parquet(self, path: Path) -> None:
        """Replaces the Parquet file ``path``, with the same numbers. Needs pyarrow."""
        require_pyarrow()
        import pyarrow
        from pyarrow import parquet

        with replacing(path) as temporary:
            parquet.write_table(pyarrow.table(self.columns), temporary)


def has_pyarrow() -> bool:
    """Whether the package is installed, without importing it."""
    return importlib.util.find_spec("pyarrow") is not None


def require_pyarrow() -> None:
    """MissingPackageError without the package, so that nothing is trained in vain."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingPackageError.of("curves.parquet needs", "pyarrow", "parquet", error) from None
