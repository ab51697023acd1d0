"""Signals: a training handles them at the end of a chunk, where it is safe to stop or to raise.

There Ctrl-C, SIGTERM and SIGHUP request the end of the training, and the handlers of other signals
run, which may raise. Outside of a training SIGTERM and SIGHUP can end a command by an exception, as
Ctrl-C does, so that it cleans up.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal was closed; Windows has none


class Interrupted(Exception):
    """A signal has stopped the training; its state is saved in the folder ``run``, if any.

    ``at``: where it stands, if not at ``step``; ``how``: what continues it.
    """

    def __init__(
        self, step: int, signum: int, run: Path | None, *, at: str = "", how: str = ""
    ) -> None:
        how = how or f"mlpkern train --resume {run}"
        advice = f"; saved; continue with: {how}" if run else ""
        super().__init__(f"{signal.Signals(signum).name} at {at or f'step {step}'}{advice}")
        self.step = step
        self.signum = signum
        self.run = run


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received, see `terminating`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise `Terminated`, unless they have a handler already.

    No effect outside the main thread, where Python allows no handlers.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        for number in filter(None, (signal.SIGTERM, _HANG_UP)):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end)
                ours.append(number)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class StopSignal:
    """Within the block the first SIGINT, SIGTERM or SIGHUP is only recorded in ``received``.

    A second one has its usual effect, so a user can always get out; except SIGHUP, which terminal
    and shell may both send when a window is closed. If SIGHUP is ignored (``nohup``), it stays so.

    The handlers of other signals run in `deliver` and at the end of the block, or with ``others``
    at once, as ever. No effect outside the main thread, where Python allows no handlers.
    """

    def __init__(self, *, others: bool = False) -> None:
        self._at_once = others
        self.received: int | None = None
        self._requests: dict[int, Any] = {}  # number -> the handler before
        self._others: dict[int, Any] = {}
        self._waiting: dict[int, Any] = {}  # number -> the handler to run

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in signal.valid_signals():
                handler = signal.getsignal(number)
                if number in (signal.SIGINT, signal.SIGTERM) or (
                    number == _HANG_UP and handler != signal.SIG_IGN
                ):
                    self._requests[number] = signal.signal(number, self._note)
                elif callable(handler) and not self._at_once:
                    self._others[number] = signal.signal(number, self._wait)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(self._requests, self._note)
        self._restore(self._others, self._wait)
        self.deliver()

    def deliver(self) -> None:
        """Runs the handlers of signals received since the last call; they may raise."""
        while self._waiting:
            number, handler = self._waiting.popitem()
            handler(number, sys._getframe(1))

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        if number != _HANG_UP:
            self._restore(self._requests, self._note)

    def _wait(self, number: int, _frame: FrameType | None) -> None:
        self._waiting[number] = self._others[number]

    @staticmethod
    def _restore(handlers: dict[int, Any], ours: Callable[..., None]) -> None:
        for number, handler in handlers.items():
            if signal.getsignal(number) == ours:  # unless a handler has set another one
                # None: the earlier handler was not set from Python
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        handlers.clear()
