"""The log of a run as event files of TensorBoard, beside log.csv.

    tensorboard --logdir runs

Scalars, at the steps of the log rows: ``loss/train`` (mean of the batches since the row before),
``loss/dev``, ``learning rate``. The package ``tensorboard`` is imported only if asked for.

`write_model` does the same for a model of many, after its training, with its settings for the tab
"HParams", which compares all models under one --logdir.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpkern.lm.errors import CheckpointError, MissingPackageError, WriteError
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.saved.log import LogRow
from mlpkern.lm.training.progress import Progress, display_failed


def require_tensorboard() -> None:
    """MissingPackageError without the package, so that a command fails before it works."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        kind = "tensorboard"
        raise MissingPackageError.of("--tensorboard needs", kind, kind, error) from None


class TensorBoardProgress:
    """Passes every call on to ``shown``, and writes the log rows into ``folder``.

    Args:
        done: steps of the run so far; TensorBoard discards what an earlier part of the run wrote
            for later steps, as log.csv does.
    """

    def __init__(self, folder: Path, shown: Progress, *, done: int = 0) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._shown = shown
        purge = done + 1 if done else None
        try:
            self._writer: SummaryWriter | None = SummaryWriter(str(folder), purge_step=purge)
        except OSError as error:
            raise CheckpointError(
                f"{folder}: cannot be written: {error.strerror or error}"
            ) from None

    def advance(self, steps: int) -> None:
        self._shown.advance(steps)

    def row(self, row: LogRow) -> None:
        self._shown.row(row)
        for name, value in _scalars(row).items():
            self._write("add_scalar", name, value, row.step)

    def close(self) -> None:
        self._shown.close()
        self._write("close")

    def _write(self, call: str, *values: Any) -> None:
        """Calls a method of the writer; after its first error the run goes on without it."""
        try:
            if self._writer is not None:
                getattr(self._writer, call)(*values)
        except Exception as error:
            self._writer = None
            display_failed(error)


def write_model(
    folder: Path,
    rows: Sequence[LogRow],
    settings: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> None:
    """Replaces ``folder``, one run of TensorBoard, by the curve and the settings of a model.

    Args:
        folder: of this model alone, such as ``DIR/tensorboard/17``; ``tensorboard --logdir DIR``
            shows all models. It is there as a whole or not at all.
        rows: the log of the model, whose scalars are named as those of a run.
        settings: hyper-parameters by name, with the values of `TrainConfig` or of a search space:
            numbers, text, widths, learning rates. What reads as a number is one in the table.
        metrics: numbers to compare models by, such as {"dev loss": 2.1}; scalars at the last step.

    MissingPackageError without the package, WriteError if the files cannot be written.
    """
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    table = {name: _plain(value) for name, value in settings.items()}
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with SummaryWriter(str(unfinished)) as writer:
            for row in rows:
                for name, value in _scalars(row).items():
                    writer.add_scalar(name, value, row.step)
            for part in hparams(table, dict(metrics)):
                writer._get_file_writer().add_summary(part)
            for name, value in metrics.items():
                writer.add_scalar(name, value, rows[-1].step if rows else 0)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except OSError as error:
        raise WriteError.of(folder, error) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _scalars(row: LogRow) -> dict[str, float]:
    scalars = {"loss/train": row.train_loss, "loss/dev": row.dev_loss, "learning rate": row.lr}
    return {name: value for name, value in scalars.items() if value is not None}


def _plain(value: Any) -> bool | float | str:
    """``value`` as a type that the plug-in knows: a number if its text is one, else the text."""
    if isinstance(value, (bool, int, float)):
        return value
    text = setting_text(value)
    try:
        return float(text)
    except ValueError:
        return text
