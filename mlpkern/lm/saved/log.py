"""The log of a run: one CSV row every few steps."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mlpkern.lm.atomic_write import append_lines, write_bytes
from mlpkern.lm.errors import CheckpointError, WriteError

__all__ = ["LogRow", "append_rows", "read_log", "truncate_log", "write_log"]


@dataclass(frozen=True)
class LogRow:
    """
    Attributes:
        step: steps done
        lr: learning rate of the last of them
        train_loss: mean loss of the batches since the row before
        dev_loss: loss over the whole dev split, None where it was not taken
        seconds: time spent on training steps since step 0, evaluations and checkpoints left out
    """

    step: int
    lr: float
    train_loss: float
    dev_loss: float | None
    seconds: float


_COLUMNS = [field.name for field in fields(LogRow)]


def append_rows(path: Path, rows: Sequence[LogRow]) -> None:
    """Adds ``rows`` to the log at ``path``, which begins with a line of column names.

    WriteError where they do not fit on the disk; then none of them is in the log.
    """
    append_lines(path, "".join(map(_text, rows)).encode(), head=_line(_COLUMNS).encode())


def write_log(path: Path, rows: Sequence[LogRow]) -> None:
    """Replaces the log at ``path`` by one of ``rows``."""
    write_bytes(path, (_line(_COLUMNS) + "".join(map(_text, rows))).encode())


def read_log(path: Path) -> list[LogRow]:
    """The rows of a log, none where there is no file yet; CheckpointError names the line that is
    none, or that cannot follow the one before.

    A last line without its end is what a crash leaves; it is left out.
    """
    rows: list[LogRow] = []
    for number, line in enumerate(_whole_lines(path), 1):
        cells = next(csv.reader([line]), [])
        if number == 1:
            if cells != _COLUMNS:
                raise CheckpointError(f"{path}, line 1: expected {','.join(_COLUMNS)}")
            continue
        try:
            row = _row(cells)
        except ValueError:
            raise CheckpointError(f"{path}, line {number}: not a log row") from None
        if rows and not (row.step > rows[-1].step and row.seconds >= rows[-1].seconds):
            raise CheckpointError(
                f"{path}, line {number}: step {row.step} at {row.seconds} s cannot follow step "
                f"{rows[-1].step} at {rows[-1].seconds} s"
            )
        rows.append(row)
    return rows


def truncate_log(path: Path, step: int) -> None:
    """Drops the rows after ``step``: a resumed run writes them again. Needs no room on the disk."""
    lines = _whole_lines(path)
    kept = 1 + sum(row.step <= step for row in read_log(path))
    size = sum(len(line.encode()) for line in lines[:kept])
    try:
        if lines and size < path.stat().st_size:
            os.truncate(path, size)
    except OSError as error:
        raise WriteError.of(path, error) from None


def _whole_lines(path: Path) -> list[str]:
    """The lines of a log with their ends, without a last one that has none."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    return text[: text.rfind("\n") + 1].splitlines(keepends=True)


def _row(cells: list[str]) -> LogRow:
    """The row with these cells; ValueError where they cannot be one's."""
    step, lr, train_loss, dev_loss, seconds = cells
    dev = float(dev_loss) if dev_loss else None
    row = LogRow(int(step), float(lr), float(train_loss), dev, float(seconds))
    numbers = (row.step, row.lr, row.train_loss, row.seconds, dev or 0.0)
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError
    return row


def _text(row: LogRow) -> str:
    step, lr, train_loss, dev_loss, seconds = astuple(row)
    dev = "" if dev_loss is None else f"{dev_loss:.6f}"
    return _line([step, lr, f"{train_loss:.6f}", dev, f"{seconds:.3f}"])


def _line(cells: list) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
