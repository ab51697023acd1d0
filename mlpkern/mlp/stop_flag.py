"""A flag by which one thread ends the long calls of others.

Python runs the handlers of signals in the main thread alone, so the main thread sets a flag by
which the calls of other threads learn of Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Stopped(Exception):
    """The `StopFlag` of this thread was set; the results of all steps done are in place."""


class StopFlag:
    """Once set, ends every `train_steps` and `evaluate` of the threads that obey it.

    Each raises `Stopped` at the next occasion, within a fraction of a second.
    """

    def __init__(self) -> None:
        self.byte = bytearray(1)  # compiled code reads it without the interpreter lock

    def set(self) -> None:
        self.byte[0] = 1

    def is_set(self) -> bool:
        return self.byte[0] != 0

    def check(self) -> None:
        """Raises `Stopped` if it is set."""
        if self.is_set():
            raise Stopped

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """Within, the calling thread obeys this flag, and no signal ends its calls."""
        token = _flag.set(self)
        try:
            yield
        finally:
            _flag.reset(token)


_flag: ContextVar[StopFlag | None] = ContextVar("mlpkern_stop_flag", default=None)


#: ``current_flag()`` is the flag that the calling thread obeys, or None.
current_flag: Callable[[], StopFlag | None] = _flag.get
