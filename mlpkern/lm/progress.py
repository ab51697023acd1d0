"""What a user sees of a running training: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from mlpkern.lm.log import LogRow

__all__ = ["BarProgress", "LineProgress", "NoProgress", "Progress", "make_progress"]


class Progress(Protocol):
    def advance(self, steps: int) -> None:
        """``steps`` more steps are done."""

    def row(self, row: LogRow) -> None:
        """A log row was made."""

    def close(self) -> None: ...


class NoProgress:
    """Shows nothing."""

    def advance(self, steps: int) -> None: ...

    def row(self, row: LogRow) -> None: ...

    def close(self) -> None: ...


class LineProgress:
    """One line of text per log row, on standard output."""

    def __init__(self, total: int) -> None:
        self._total = total

    def advance(self, steps: int) -> None: ...

    def row(self, row: LogRow) -> None:
        dev = "" if row.dev_loss is None else f"  dev {row.dev_loss:.4f}"
        width = len(str(self._total))
        print(
            f"step {row.step:>{width}}/{self._total}  lr {row.lr:g}  "
            f"train {row.train_loss:.4f}{dev}  {row.seconds:.1f} s",
            flush=True,
        )

    def close(self) -> None: ...


class BarProgress:
    """A tqdm bar on standard error with the latest losses."""

    def __init__(self, total: int, done: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

        # a terminal that reports no size (some recorders do) would get a bar of no width
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
        size = {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}
        self._bar = tqdm(total=total, initial=done, unit="step", **size)
        self._losses: dict[str, str] = {}

    def advance(self, steps: int) -> None:
        self._bar.update(steps)

    def row(self, row: LogRow) -> None:
        self._losses["train"] = f"{row.train_loss:.4f}"
        if row.dev_loss is not None:
            self._losses["dev"] = f"{row.dev_loss:.4f}"
        self._bar.set_postfix(self._losses, refresh=True)

    def close(self) -> None:
        self._bar.close()


def make_progress(total: int, done: int) -> Progress:
    """A bar when standard error is a terminal, else lines."""
    return BarProgress(total, done) if sys.stderr.isatty() else LineProgress(total)
