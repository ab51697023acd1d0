"""Atomic writes: after a crash a file has its old content or the new one, never a mixture.

The whole language model writes files through this module. So every failure is one line that names
the file (`WriteError`), and the temporary files of a killed process are known by their names.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlpkern.lm.errors import WriteError


@contextmanager
def replacing(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """A temporary file beside ``path``; a rename puts it in the place of ``path`` after the block.

    The temporary file is flushed to the disk before the rename, so a crash at any moment leaves a
    whole file. It has a folder of its own, since a library may write it through another temporary
    file. Missing parent folders are made. After a WriteError ``path`` is unchanged.

    Flushing takes milliseconds. Without it (``flushed=False``) the file survives a crash of the
    program, but a crash of the machine only after `flush`.
    """
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary = folder / path.name
    try:
        folder.mkdir(parents=True)
        try:
            temporary.touch()
            usual = temporary.stat().st_mode
            yield temporary
            temporary.chmod(usual)
            if flushed:
                _sync(temporary)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise WriteError.of(path, error) from None
    if flushed:
        _sync_folder(path.parent)


def flush(path: Path) -> None:
    """Flushes a file that was written without to the disk; WriteError if that fails."""
    try:
        _sync(path)
    except OSError as error:
        raise WriteError.of(path, error) from None
    _sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file ``path`` by ``content`` in one step, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Replaces the file ``path`` by ``value`` as indented JSON.

    JSON has no numbers that are not finite; they become the strings "nan", "inf" and "-inf", which
    ``float`` reads.
    """
    text = json.dumps(_finite(value), indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """``rows`` as lines of CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def append_lines(path: Path, lines: bytes, *, head: bytes = b"", sync: bool = False) -> None:
    """Adds whole ``lines`` to the end of the file ``path``, which is made if it does not exist.

    Args:
        head: the first lines of a file that has no whole line yet.
        sync: also flush the lines to the disk.

    A last line without an end of line, which a crash leaves, is cut off first. After a WriteError
    none of ``lines`` is in the file. One process at a time may append to a file.
    """
    try:
        with open(os.open(path, os.O_CREAT | os.O_RDWR, 0o666), "r+b", buffering=0) as file:
            end = _end_of_lines(file.fileno())
            file.truncate(end)
            file.seek(end)
            try:
                left = memoryview(lines if end else head + lines)
                while left:
                    left = left[file.write(left) :]
                if sync:
                    os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise WriteError.of(path, error) from None


def is_leftover(file: str, names: Collection[str] | None = None) -> bool:
    """Whether ``file`` names a temporary folder of `replacing`, for one of ``names`` if given."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-z_]{8}\.tmp", file)
    return found is not None and (names is None or found[1] in names)


def remove_leftovers(folder: Path, names: Collection[str] | None = None) -> None:
    """Removes the temporary files that a killed process left of the files ``names``, or of all.

    Only for a process that alone may write them: those of a running process look the same.
    """
    for left in folder.iterdir():
        if is_leftover(left.name, names):
            shutil.rmtree(left, ignore_errors=True)
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)  # earlier versions used a file, not a folder


def _end_of_lines(handle: int) -> int:
    """The size of the open file up to the end of its last whole line."""
    end, piece = os.fstat(handle).st_size, 1 << 16
    while end:
        start = max(0, end - piece)
        last = os.pread(handle, end - start, start).rfind(b"\n")
        if last >= 0:
            return start + last + 1
        end = start
    return 0


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` durable."""
    with contextlib.suppress(OSError):  # some systems cannot open a folder
        _sync(folder)


def _finite(value: Any) -> Any:
    """``value`` with strings in place of numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
