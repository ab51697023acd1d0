"""Writes that may fail while a training goes on, as on a full disk, and are tried again."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

from mlpkern.lm.errors import WriteError

RETRY_SECONDS = 30.0  # between attempts to write a file


class Attempts:
    """Which files could not be written, and when each is to be tried again."""

    def __init__(self) -> None:
        self._next_try: dict[Path, float] = {}

    def attempt(self, path: Path, write: Callable[[], None]) -> bool:
        """Calls ``write``, which writes ``path``; on a WriteError warns once, returns False."""
        try:
            write()
        except WriteError as error:
            if path not in self._next_try:
                warnings.warn(
                    f"{error}; training goes on, and tries again", RuntimeWarning, stacklevel=2
                )
            self._next_try[path] = time.monotonic() + RETRY_SECONDS
            return False
        self.written(path)
        return True

    def written(self, path: Path) -> None:
        """``path`` could be written: the next failure is a new one."""
        self._next_try.pop(path, None)

    def is_due(self, path: Path) -> bool:
        """Whether it is time for another attempt to write ``path``."""
        return path in self._next_try and time.monotonic() >= self._next_try[path]
