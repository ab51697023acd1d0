"""Ctrl-C, SIGTERM and SIGHUP as a request that the training loop honors between two chunks."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "StopSignal"]

_HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal was closed; Windows has none


class Interrupted(Exception):
    """Training was asked to stop; the state is saved in the run folder ``run``, if there is one."""

    def __init__(self, step: int, signum: int, run: Path | None) -> None:
        advice = f"; saved; continue with: mlpkern train --resume {run}" if run else ""
        super().__init__(f"{signal.Signals(signum).name} at step {step}{advice}")
        self.step = step
        self.signum = signum
        self.run = run


class StopSignal:
    """While entered, the first SIGINT, SIGTERM or SIGHUP is only noted in ``received``.

    The second one acts as if this were not there, so a user can always get out; but not a second
    SIGHUP, which the terminal and the shell may both send when one window is closed. Where SIGHUP
    is ignored (``nohup``), it stays ignored. Outside the main
    thread, where Python allows no handlers, nothing changes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
            if _HANG_UP is not None and signal.getsignal(_HANG_UP) != signal.SIG_IGN:
                numbers.append(_HANG_UP)
            for number in numbers:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        if number != _HANG_UP:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: the handler before was not set from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
