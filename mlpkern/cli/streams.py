"""Standard output and error of a command: a display that fails never stops the work.

- A character that the encoding of the terminal lacks is shown as an escape such as ``\\xe9``.
- A descriptor that the caller closed (``>&-``) is opened on the null device, so that no file of a
  run gets its number.
- Errors of writing to standard error are dropped, and those of standard output while a command
  writes files (`unfailing_output`): a reader may go away, a disk fill up, a terminal close.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Standard streams that a command can print to, whatever the caller gave it. At the end,
    buffered text is written, or dropped where that is impossible."""
    before = sys.stdout, sys.stderr
    _hold_closed_descriptors()
    with contextlib.ExitStack() as undo:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                null = undo.enter_context(open(os.devnull, "w", encoding="utf-8"))
                setattr(sys, name, null)
            undo.enter_context(_escaping(getattr(sys, name)))
        ours = sys.stdout, sys.stderr
        sys.stderr = _unfailing(sys.stderr)
        try:
            yield
        finally:
            for stream in ours:
                _finish(stream)
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def unfailing_output(command: str) -> Iterator[None]:
    """Within the block, printing to standard output cannot fail. The first error is reported on
    standard error for ``command``, unless the reader has gone away (``| head``)."""

    def tell(error: Exception) -> None:
        if not isinstance(error, BrokenPipeError):
            why = getattr(error, "strerror", None) or error
            print(f"mlpkern {command}: standard output: {why}; the work goes on", file=sys.stderr)

    before = sys.stdout
    sys.stdout = _unfailing(before, tell)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


class _Unfailing:
    """``stream`` without the errors of writing; ``tell`` gets the first."""

    def __init__(self, stream: TextIO, tell: Callable[[Exception], None]) -> None:
        self._stream, self._tell = stream, tell
        self._failed = False

    def write(self, text: str) -> int:
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[..., Any], *values: str) -> None:
        try:
            action(*values)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            if not self._failed:
                self._failed = True
                self._tell(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _unfailing(stream: TextIO, tell: Callable[[Exception], None] = lambda _: None) -> TextIO:
    return cast(TextIO, _Unfailing(stream, tell))


@contextlib.contextmanager
def _escaping(stream: Any) -> Iterator[None]:
    """``stream`` with escapes for the characters that it cannot encode."""
    errors = getattr(stream, "errors", None)
    if errors not in ("strict", "surrogateescape") or not hasattr(stream, "reconfigure"):
        yield  # it never fails, or does not encode
        return
    with contextlib.suppress(OSError, ValueError):
        stream.reconfigure(errors="backslashreplace")
    yield
    with contextlib.suppress(OSError, ValueError):
        stream.reconfigure(errors=errors)


def _hold_closed_descriptors() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def _finish(stream: TextIO) -> None:
    """Writes what is buffered. Where that fails, the stream gets the null device, because the
    interpreter writes the rest again when it ends."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            descriptor = stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, descriptor)
            os.close(null)
