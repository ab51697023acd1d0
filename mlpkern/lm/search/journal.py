"""The journal of an Optuna study: one operation per line, appended by several processes.

Compatible in both directions with the files of Optuna's `JournalFileBackend`, except that

- a last line without an end of line, left by a crash or a full disk, is cut off before an append;
- every line contains the CRC-32 of its other content under "crc32", a key that Optuna ignores, so
  that a line that is damaged but still JSON is detected (a line without it is accepted);
- errors are one line that names the file and the line.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from mlpkern.lm.atomic_write import append_lines
from mlpkern.lm.errors import CheckpointError, WriteError

CHECK = "crc32"


class Journal(BaseJournalBackend):
    """The journal in the file ``path``, which is created if it does not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = JournalFileSymlinkLock(str(path))
        self._read = (0, 0)  # lines read so far, and the offset of their end
        self._line = 0
        self._append(b"")

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from this number on; Optuna asks for those it has not read yet."""
        number, end = self._read if self._read[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):  # being written, or torn
                    return
                self._line = number + 1
                if number >= log_number_from:
                    yield self._operation(line, number + 1)
                number, end = number + 1, end + len(line)
                self._read = number, end

    @property
    def line(self) -> int:
        """The number of the line read last; the first is 1."""
        return self._line

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds operations; after a WriteError none of them is in the file."""
        self._append(b"".join(_line(log) for log in logs))

    def _append(self, lines: bytes) -> None:
        try:
            self._lock.acquire()
        except OSError as error:
            raise WriteError.of(self._path, error) from None
        try:
            append_lines(self._path, lines, sync=True)
        finally:
            self._lock.release()

    def _operation(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            operation = json.loads(line)
            checked = operation.pop(CHECK, None)
            if checked is None or checked == _check(operation):
                return dict(operation)
        except (ValueError, AttributeError, TypeError):
            pass
        what = (
            f"damaged; lines 1 to {number - 1} are whole, and a journal of them alone goes on from "
            "there"
            if number > 1
            else "not the journal of a sweep"
        )
        raise CheckpointError(f"{self._path}, line {number}: {what}")


def _line(operation: dict[str, Any]) -> bytes:
    return (_text({**operation, CHECK: _check(operation)}) + "\n").encode()


def _check(operation: dict[str, Any]) -> int:
    return zlib.crc32(_text(operation).encode())


def _text(operation: dict[str, Any]) -> str:
    return json.dumps(operation, separators=(",", ":"))
