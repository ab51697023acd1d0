"""The log of a run: one CSV row every few steps."""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mlpkern.lm.atomic_write import write_bytes
from mlpkern.lm.errors import CheckpointError

__all__ = ["LogRow", "append_row", "read_log", "truncate_log"]


@dataclass(frozen=True)
class LogRow:
    """
    step        steps done
    lr          learning rate of the last of them
    train_loss  mean loss of the batches since the row before
    dev_loss    loss over the whole dev split, None where it was not taken
    seconds     time spent on training steps since step 0, evaluations and checkpoints left out
    """

    step: int
    lr: float
    train_loss: float
    dev_loss: float | None
    seconds: float


_COLUMNS = [field.name for field in fields(LogRow)]


def append_row(path: Path, row: LogRow) -> None:
    """Adds ``row`` to the log at ``path``, which begins with a line of column names."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        if new:
            file.write(_line(_COLUMNS))
        file.write(_text(row))


def read_log(path: Path) -> list[LogRow]:
    """The rows of a log, none where there is no file yet; CheckpointError names the line that is
    none.

    A last line without its end is what a crash leaves; it is left out.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    whole = text[: text.rfind("\n") + 1]
    rows = []
    for number, cells in enumerate(csv.reader(io.StringIO(whole)), 1):
        if number == 1:
            if cells != _COLUMNS:
                raise CheckpointError(f"{path}, line 1: expected {','.join(_COLUMNS)}")
            continue
        try:
            step, lr, train_loss, dev_loss, seconds = cells
            dev = float(dev_loss) if dev_loss else None
            rows.append(LogRow(int(step), float(lr), float(train_loss), dev, float(seconds)))
        except ValueError:
            raise CheckpointError(f"{path}, line {number}: not a log row") from None
    return rows


def truncate_log(path: Path, step: int) -> None:
    """Drops the rows after ``step``: a resumed run writes them again."""
    if path.exists():
        kept = [row for row in read_log(path) if row.step <= step]
        write_bytes(path, (_line(_COLUMNS) + "".join(map(_text, kept))).encode())


def _text(row: LogRow) -> str:
    step, lr, train_loss, dev_loss, seconds = astuple(row)
    dev = "" if dev_loss is None else f"{dev_loss:.6f}"
    return _line([step, lr, f"{train_loss:.6f}", dev, f"{seconds:.3f}"])


def _line(cells: list) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
