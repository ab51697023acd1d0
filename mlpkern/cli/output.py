"""The check of a file that a command is asked to write, how rows are told, and long lines."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path

from mlpkern.lm.errors import ConfigError


def check_output(path: str | Path, *, force: bool = False, flag: str = "--out") -> Path:
    """``path``, where a file may be written; touches nothing.

    ConfigError for a folder, for a place under a file, and for a file without ``force``.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; {flag} names a file")
    for folder in path.parents:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{path}: cannot be written: {folder} is not a folder")
    if path.exists() and not force:
        raise ConfigError(f"{path}: exists; replace it with --force, or choose another {flag}")
    return path


def rows_text(rows: int, error: float | None) -> str:
    """``rows``, and where they are few the standard error of their mean loss.

    >>> rows_text(22655, None), rows_text(214, 0.0873)
    ('22655 rows', '214 rows, few: loss ±0.087')
    """
    return f"{rows} rows" if error is None else f"{rows} rows, few: loss ±{error:.3f}"


def folded(line: str) -> str:
    """A line of a header, on a terminal cut between words, with its rest below the first value."""
    columns = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or not 40 <= columns < len(line):
        return line
    return textwrap.fill(
        line, columns, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False
    )
