"""The log of a run: one CSV row every few steps."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from mlpkern.lm.atomic_write import append_lines, csv_text, write_bytes
from mlpkern.lm.errors import CheckpointError, WriteError


@dataclass(frozen=True)
class LogRow:
    """A row of the log.

    Attributes:
        step: steps done
        lr: learning rate of the last step
        train_loss: mean loss of the batches since the row before
        dev_loss: loss over the whole dev split, None if not taken
        seconds: time of the training steps since step 0, without evaluations and checkpoints
    """

    step: int
    lr: float
    train_loss: float
    dev_loss: float | None
    seconds: float


_COLUMNS = [field.name for field in fields(LogRow)]


def append_rows(path: Path, rows: Sequence[LogRow]) -> None:
    """Adds ``rows`` to the log at ``path``, whose first line names the columns.

    After a WriteError, as on a full disk, none of them is in the log.
    """
    append_lines(path, _text(rows), head=csv_text([_COLUMNS]).encode())


def write_log(path: Path, rows: Sequence[LogRow]) -> None:
    """Replaces the log at ``path`` by one of ``rows``."""
    write_bytes(path, csv_text([_COLUMNS]).encode() + _text(rows))


def read_log(path: Path) -> list[LogRow]:
    """The rows of a log; an empty list without a file. CheckpointError names a line that is not a
    log row, or that cannot follow the one before.

    A last line without an end of line, which a crash leaves, is ignored.
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
    """Drops the rows after ``step``, which a resumed run writes again. Works on a full disk."""
    lines = _whole_lines(path)
    kept = 1 + sum(row.step <= step for row in read_log(path))
    size = sum(len(line.encode()) for line in lines[:kept])
    try:
        if lines and size < path.stat().st_size:
            os.truncate(path, size)
    except OSError as error:
        raise WriteError.of(path, error) from None


def _whole_lines(path: Path) -> list[str]:
    """The lines of a log that end with an end of line, which is kept."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read: {why}") from None
    return text[: text.rfind("\n") + 1].splitlines(keepends=True)


def _row(cells: list[str]) -> LogRow:
    """The row with these cells; ValueError if they are not those of a row."""
    step, lr, train_loss, dev_loss, seconds = cells
    dev = float(dev_loss) if dev_loss else None
    row = LogRow(int(step), float(lr), float(train_loss), dev, float(seconds))
    numbers = (row.step, row.lr, row.train_loss, row.seconds, dev or 0.0)
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError
    return row


def _text(rows: Sequence[LogRow]) -> bytes:
    return csv_text(
        [
            row.step,
            row.lr,
            f"{row.train_loss:.6f}",
            "" if row.dev_loss is None else f"{row.dev_loss:.6f}",
            f"{row.seconds:.3f}",
        ]
        for row in rows
    ).encode()
