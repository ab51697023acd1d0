"""Ctrl-C and SIGTERM as a request that the training loop honors between two chunks."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "StopSignal"]


class Interrupted(Exception):
    """Training was asked to stop; the state is saved in the run folder ``run``, if there is one."""

    def __init__(self, step: int, signum: int, run: Path | None) -> None:
        advice = f"; saved; continue with: mlpkern train --resume {run}" if run else ""
        super().__init__(f"{signal.Signals(signum).name} at step {step}{advice}")
        self.step = step
        self.signum = signum
        self.run = run


class StopSignal:
    """While entered, the first SIGINT or SIGTERM is only noted in ``received``.

    The second one acts as if this were not there, so a user can always get out. Outside the main
    thread, where Python allows no handlers, nothing changes.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: the handler before was not set from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()
