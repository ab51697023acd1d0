"""Stock providers under a malloc that keeps its pages, in a process of their own.

glibc gives large blocks back to the system as soon as they are freed, so every step of a stock
program faults the pages of its outputs in again. Two variables in the environment stop that, and
they only work when set before a process starts. The worker started here holds one case and answers
`sample NAME REPEATS` with seconds, so that its samples are taken in turns with everyone else's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
MODES = {"eager, malloc keeps pages": False, "compile, malloc keeps pages": True}


def modes(compile: bool) -> list[str]:
    """Names of the rows, those that need torch.compile only if `compile`."""
    return [name for name, compiles in MODES.items() if compile or not compiles]


class WorkerError(RuntimeError):
    """The worker did not start or died; the message is the last thing it said."""


class Worker:
    """A process that holds the stock providers of one case."""

    def __init__(self, op: str, name: str, threads: int, *, compile: bool = True):
        self._modes = modes(compile)
        environment = {**os.environ, **ENVIRONMENT}
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(p for p in paths if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.keep_pages", op, name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            self._ask(None)
        except WorkerError:
            self.close()
            raise

    def contestants(self) -> list[RemoteContestant]:
        return [RemoteContestant(name, self) for name in self._modes]

    def sample(self, name: str, repeats: int) -> float:
        """Seconds of `repeats` calls, measured inside the worker by the same timer."""
        return float(self._ask({"name": name, "repeats": repeats})["seconds"])

    def close(self) -> None:
        """Ends the worker."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, question: dict[str, object] | None) -> dict[str, float]:
        """One line out (none for the greeting), one line back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if question is not None:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError as error:
            raise WorkerError(f"the worker is gone: {error}") from error
        if not line:
            raise WorkerError(f"the worker ended with status {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer


@dataclass
class RemoteContestant:
    """A contestant whose calls run in the worker."""

    name: str
    worker: Worker

    def active(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def sample(self, repeats: int) -> float:
        return self.worker.sample(self.name, repeats)


def serve(op: str, name: str, threads: int) -> None:
    """The worker's loop: builds the case, greets, then answers until stdin ends.

    A provider compiles at its first call; the timer does not use the first sample.
    """
    import torch

    from bench.case import forward_backward
    from bench.providers import compiled
    from bench.tables import OP_TABLES, find_case
    from bench.timer import seconds_of

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    torch.set_num_threads(threads)
    table = OP_TABLES[op]
    problem = table.problem(find_case(op, name))
    calls = {
        mode: forward_backward(compiled(table.stock) if compile else table.stock, problem)
        for mode, compile in MODES.items()
    }

    def reply(answer: dict[str, object]) -> None:
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    reply({"ready": True})
    for line in sys.stdin:
        question = json.loads(line)
        reply({"seconds": seconds_of(calls[question["name"]], question["repeats"])})


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
