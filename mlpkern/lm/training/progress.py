"""The display of a running training or evaluation: a bar on a terminal, plain lines elsewhere.

A display that raises never ends a training: the trainer goes on without it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from types import NoneType
from typing import Any, Protocol

from mlpkern.lm.saved.log import LogRow

QUIET_SECONDS = 5.0  # between lines without a dev loss


class Progress(Protocol):
    """What the trainer calls during a run. After the first exception of a method it warns
    (`display_failed`) and goes on without calls. KeyboardInterrupt and SystemExit end the run."""

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


class LineProgress(NoProgress):
    """Lines on standard output: each log row with a dev loss, and one every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._printed = time.monotonic()

    def row(self, row: LogRow) -> None:
        if row.dev_loss is None and time.monotonic() - self._printed < QUIET_SECONDS:
            return
        self._printed = time.monotonic()
        dev = "" if row.dev_loss is None else f"  dev {row.dev_loss:.4f}"
        width = len(str(self._total))
        print(
            f"step {row.step:>{width}}/{self._total}  lr {row.lr:g}  "
            f"train {row.train_loss:.4f}{dev}  {row.seconds:.1f} s",
            flush=True,
        )


class BarProgress:
    """A tqdm bar on standard error with the latest losses; drawn at once, so make it when the
    training begins. Ten million steps fit into 80 columns with both losses."""

    def __init__(self, total: int, done: int) -> None:
        form = (
            "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
        )
        self._bar = terminal_bar(total, initial=done, unit="", bar_format=form)
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
    return BarProgress(total, done) if on_a_terminal() else LineProgress(total)


@contextlib.contextmanager
def rows_progress(name: str | None, rows: int) -> Iterator[Callable[[int], Any]]:
    """Shows on standard error how many of the ``rows`` of the split ``name`` are evaluated: what it
    yields takes how many more are. A bar on a terminal, which goes away; else one line.

    Without a name it shows nothing.
    """
    if name is None:
        yield lambda _: None
    elif not on_a_terminal():
        print(f"evaluating {name}: {rows} rows", file=sys.stderr, flush=True)
        yield lambda _: None
    else:
        with terminal_bar(rows, desc=f"evaluating {name}", unit="row", leave=False) as bar:
            yield bar.update


@contextlib.contextmanager
def shown_progress(
    progress: Progress | bool | None, total: int, done: int = 0
) -> Iterator[Progress]:
    """``progress`` itself; for True a bar within the block if standard error is a terminal, for
    False or None, or without a terminal, nothing."""
    if not isinstance(progress, (bool, NoneType)):
        yield progress
    elif not progress or not on_a_terminal():
        yield NoProgress()
    else:
        bar = BarProgress(total, done)
        try:
            yield bar
        finally:
            bar.close()


def print_above(line: str) -> None:
    """Prints ``line`` on standard error, above a bar that is shown there."""
    if bars := sys.modules.get("tqdm"):
        bars.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)
    sys.stderr.flush()


def display_failed(error: Exception) -> None:
    """Warns that a display raised ``error``; raises nothing, even if warnings are errors."""
    with contextlib.suppress(RuntimeWarning):
        what = " ".join(f"{type(error).__name__}: {error}".split())
        warnings.warn(
            f"the display of the progress failed, the training goes on without it ({what})",
            RuntimeWarning,
            stacklevel=3,
        )


def on_a_terminal() -> bool:
    """Whether standard error is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False


def terminal_bar(total: int, **options: Any) -> Any:
    """A tqdm bar on standard error, which is a terminal; ``options`` are tqdm's."""
    from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

    size = {"dynamic_ncols": True} if _size_is_known() else {"ncols": 80, "nrows": 24}
    return tqdm(total=total, **options, **size)


def _size_is_known() -> bool:
    """Whether the terminal reports its size; some recorders report 0, a bar without width."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):  # ValueError: a stream without a descriptor
        return False
