"""The log of a run as event files of TensorBoard, beside log.csv.

    tensorboard --logdir runs

Scalars, at the steps of the log rows: ``loss/train`` (mean of the batches since the row before),
``loss/dev``, ``learning rate``. The package ``tensorboard`` is imported only if asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlpkern.lm.errors import CheckpointError, MissingPackageError
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
        scalars = {"loss/train": row.train_loss, "loss/dev": row.dev_loss, "learning rate": row.lr}
        for name, value in scalars.items():
            if value is not None:
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
