"""Writes the log and the checkpoints of a run; retries where the disk is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from mlpkern.lm.atomic_write import flush
from mlpkern.lm.errors import LMError
from mlpkern.lm.saved.attempts import Attempts
from mlpkern.lm.saved.checkpoint import Checkpoint, save_checkpoint
from mlpkern.lm.saved.folder_lock import FolderLock
from mlpkern.lm.saved.log import LogRow, append_rows, truncate_log
from mlpkern.lm.saved.run_folder import RunFolder


class RunWriter(Attempts):
    """Writes log rows and checkpoints of a run under the lock of its folder.

    A full disk does not end a training: a RuntimeWarning names the file, the rows stay in memory,
    and the next write tries again. Only a failure at the end of the run is an error.

    Args:
        run: None: nothing is written, and nothing fails.
        lock: the lock of the folder, if the caller has one; entered here unless it is already.
    """

    def __init__(self, run: RunFolder | None, lock: FolderLock | None = None) -> None:
        super().__init__()
        self._run = run
        self._lock = lock or (run.lock() if run else None)
        self._rows: list[LogRow] = []  # not in the log yet
        self._best_flushed = True

    @contextmanager
    def training_from(self, step: int) -> Iterator[None]:
        """Holds the lock while a training goes on from ``step``; writes all rows at the end.

        FolderInUseError if another process writes in the folder.
        """
        if self._run is None:
            yield
            return
        with self._held():
            self._run.remove_leftovers()
            truncate_log(self._run.log, step)
            try:
                yield
            except BaseException:
                with suppress(LMError):  # the error that ended the run matters more
                    self._write_rows()
                raise
            self._write_rows()

    def row(self, row: LogRow) -> None:
        """Adds ``row`` to the rows that `flush` writes."""
        if self._run:
            self._rows.append(row)

    def flush(self) -> None:
        """Writes the rows not in the log yet, or warns."""
        if self._run and self._rows:
            self.attempt(self._run.log, self._write_rows)

    def save(self, checkpoint: Checkpoint) -> None:
        """Replaces the checkpoint; after a WriteError the old one is still there."""
        if self._run:
            with self._held():
                if not self._best_flushed and self._run.best.exists():
                    flush(self._run.best)
                    self._best_flushed = True
                save_checkpoint(self._run.checkpoint, checkpoint)
            self.written(self._run.checkpoint)

    def save_best(self, checkpoint: Checkpoint) -> bool:
        """Replaces the best checkpoint, or warns and returns False.

        It is flushed to the disk only with the next checkpoint, since a run may find many bests.
        """

        def write() -> None:
            with self._held():
                save_checkpoint(best, checkpoint, flushed=False)
            self._best_flushed = False

        if self._run is None:
            return True
        best = self._run.best
        return self.attempt(best, write)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Holds the lock, entered here unless it is already, and checks that it is still ours."""
        assert self._lock is not None
        with nullcontext() if self._lock.is_held else self._lock:
            self._lock.check()
            yield

    def _write_rows(self) -> None:
        if self._run and self._rows:
            with self._held():
                append_rows(self._run.log, self._rows)
            self._rows.clear()
