"""What a trainer writes into the folder of its run, and what happens where that is impossible."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from mlpkern.lm.atomic_write import flush
from mlpkern.lm.errors import LMError, WriteError
from mlpkern.lm.saved.checkpoint import Checkpoint, save_checkpoint
from mlpkern.lm.saved.folder_lock import FolderLock
from mlpkern.lm.saved.log import LogRow, append_rows, truncate_log
from mlpkern.lm.saved.run_folder import RunFolder

__all__ = ["RunWriter"]

RETRY_SECONDS = 30.0  # from a checkpoint that could not be written to the next attempt


class RunWriter:
    """Log rows and checkpoints of a run, written under the lock of its folder.

    A full disk on the way does not end a training: a RuntimeWarning names the file, the rows wait
    in memory, and the next write is the next attempt. What has no room at the end is an error.

    Args:
        run: None: nothing is written, and nothing fails.
        lock: that of the folder, where the caller has it; it is entered where that is not done yet.
    """

    def __init__(self, run: RunFolder | None, lock: FolderLock | None = None) -> None:
        self._run = run
        self._lock = lock or (run.lock() if run else None)
        self._rows: list[LogRow] = []  # that are not in the log yet
        self._next_try: dict[Path, float] = {}  # of files that could not be written
        self._best_flushed = True

    @contextmanager
    def training_from(self, step: int) -> Iterator[None]:
        """The time of a training that goes on from ``step``; at its end nothing waits.

        FolderInUseError when another process writes in the folder.
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
                with suppress(LMError):  # what ends the run is the error to be seen
                    self._write_rows()
                raise
            self._write_rows()

    def row(self, row: LogRow) -> None:
        """Takes ``row`` for the log; `flush` writes it."""
        if self._run:
            self._rows.append(row)

    def flush(self) -> None:
        """Writes the rows that wait, or warns."""
        if self._run and self._rows:
            self.attempt(self._run.log, self._write_rows)

    def save(self, checkpoint: Checkpoint) -> None:
        """Replaces the checkpoint; after a WriteError it is the one before."""
        if self._run:
            with self._held():
                if not self._best_flushed and self._run.best.exists():
                    flush(self._run.best)
                    self._best_flushed = True
                save_checkpoint(self._run.checkpoint, checkpoint)
            self._next_try.pop(self._run.checkpoint, None)

    def save_best(self, checkpoint: Checkpoint) -> bool:
        """Replaces the best checkpoint, or warns and returns False.

        A run may find many best ones, so it is the next checkpoint that flushes it to the disk.
        """

        def write() -> None:
            with self._held():
                save_checkpoint(best, checkpoint, flushed=False)
            self._best_flushed = False

        if self._run is None:
            return True
        best = self._run.best
        return self.attempt(best, write)

    def attempt(self, path: Path, write: Callable[[], None]) -> bool:
        """``write()``, which writes ``path``; False and, once, a warning where it cannot."""
        try:
            write()
        except WriteError as error:
            if path not in self._next_try:
                warnings.warn(
                    f"{error}; training goes on, and tries again", RuntimeWarning, stacklevel=2
                )
            self._next_try[path] = time.monotonic() + RETRY_SECONDS
            return False
        self._next_try.pop(path, None)
        return True

    def is_due(self, path: Path) -> bool:
        """Whether it is time for another attempt to write ``path``."""
        return path in self._next_try and time.monotonic() >= self._next_try[path]

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The lock, entered unless it is already, and still that of this process."""
        assert self._lock is not None
        with nullcontext() if self._lock.is_held else self._lock:
            self._lock.check()
            yield

    def _write_rows(self) -> None:
        if self._run and self._rows:
            with self._held():
                append_rows(self._run.log, self._rows)
            self._rows.clear()
