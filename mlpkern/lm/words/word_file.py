"""The bytes of a file of words: a path, standard input or a pipe, plain or compressed by gzip.

The data of a pipe cannot be read again, so the record of a run says that they came from one.
"""

from __future__ import annotations

import gzip
import os
import stat
import sys
import zlib
from pathlib import Path

from mlpkern.lm.errors import DataError

__all__ = ["check_readable_again", "read_file", "recorded_source", "shown_source"]

STANDARD_INPUT, PIPE = "standard input", "a pipe"  # recorded instead of an absolute path
_NAMES_OF_STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_GZIP = b"\x1f\x8b"  # no UTF-8 text begins with it


def read_file(path: str | Path) -> bytes:
    """The content of ``path`` or, for "-", of standard input; gzip data are decompressed, whatever
    the name. DataError if it cannot be read or the compressed data are damaged."""
    source = shown_source(path)
    try:
        raw = _standard_input() if str(path) == "-" else Path(path).read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except IsADirectoryError:
        raise DataError(
            f"{source}: is a directory; give a text file with one word a line"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{source}: damaged or cut gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from None


def shown_source(path: str | Path) -> str:
    """The name of ``path`` in messages."""
    return STANDARD_INPUT if str(path) == "-" else str(path)


def recorded_source(path: str) -> str:
    """What the record of a run says of ``path``: a file's absolute path, or that it was a pipe."""
    if path != "-":
        if stat.S_ISREG(os.stat(path).st_mode):  # with `< names.txt` /dev/stdin is a file as well
            return str(Path(path).resolve())
        if path not in _NAMES_OF_STANDARD_INPUT:
            return PIPE
    return STANDARD_INPUT


def check_readable_again(source: str) -> None:
    """DataError if the recorded ``source`` was a pipe."""
    if source in (STANDARD_INPUT, PIPE):
        raise DataError(
            f"the words of this run came from {source}, which is read once; name a FILE that holds "
            "them"
        )


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise DataError(f"{STANDARD_INPUT}: is closed; give a file")
    return sys.stdin.buffer.read()
