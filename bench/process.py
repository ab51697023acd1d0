"""A process that answers questions, one line of JSON each: for providers that need their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Message = dict[str, Any]


class ProcessError(RuntimeError):
    """The process did not start or died; the message is the last thing it said."""


class Process:
    """`python -m MODULE ARGUMENTS`, ready to be asked once it has greeted.

    `greet=False` leaves waiting for the greeting (`receive`) to the caller, who starts several.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] = {}, *, greet: bool = True
    ):
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        path = {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, **path},
        )
        if greet:
            try:
                self.receive()
            except ProcessError:
                self.close()
                raise

    def send(self, question: Message) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ProcessError(f"the worker is gone: {error}") from error

    def receive(self) -> Message:
        """Waits for the greeting, later for the answer to what was sent."""
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except OSError as error:
            raise ProcessError(f"the worker is gone: {error}") from error
        if not line:
            raise ProcessError(f"the worker ended with status {self._process.wait()}")
        answer: Message = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(prepare: Callable[[], Callable[[Message], Message]]) -> None:
    """The worker's loop: `prepare` gives what answers; greets, answers till stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer

    def reply(message: Message) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    answer = prepare()
    reply({"ready": True})
    for line in sys.stdin:
        reply(answer(json.loads(line)))
