"""Stock providers under a malloc that keeps its pages, in a process of their own.

glibc gives large blocks back to the system as soon as they are freed, so every step of a stock
program faults the pages of its outputs in again. Two variables in the environment stop that, and
they only work when set before a process starts. The worker started here holds one case and answers
`sample NAME REPEATS` with seconds, so that its samples are taken in turns with everyone else's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bench.process import Message, Process, serve

ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
MODES = {"eager, malloc keeps pages": False, "compile, malloc keeps pages": True}


def modes(compile: bool) -> list[str]:
    """Names of the rows, those that need torch.compile only if `compile`."""
    return [name for name, compiles in MODES.items() if compile or not compiles]


class Worker(Process):
    """A process that holds the stock providers of one case."""

    def __init__(self, op: str, name: str, threads: int, *, compile: bool = True):
        self._modes = modes(compile)
        super().__init__(["bench.keep_pages", op, name, str(threads)], ENVIRONMENT)

    def contestants(self) -> list[RemoteContestant]:
        return [RemoteContestant(name, self) for name in self._modes]

    def sample(self, name: str, repeats: int) -> float:
        """Seconds of `repeats` calls, measured inside the worker by the same timer."""
        self.send({"name": name, "repeats": repeats})
        return float(self.receive()["seconds"])


@dataclass
class RemoteContestant:
    """A contestant whose calls run in the worker."""

    name: str
    worker: Worker
    calls: int = 0

    def active(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def sample(self, repeats: int) -> float:
        return self.worker.sample(self.name, repeats)


def prepare(op: str, name: str, threads: int) -> Callable[[Message], Message]:
    """Builds the case in the worker; what it returns answers with seconds.

    A provider compiles at its first call; the timer does not use the first sample.
    """
    import torch

    from bench.case import forward_backward
    from bench.providers import compiled
    from bench.tables import OP_TABLES, find_case
    from bench.timer import seconds_of

    torch.set_num_threads(threads)
    table = OP_TABLES[op]
    problem = table.problem(find_case(op, name))
    calls = {
        mode: forward_backward(compiled(table.stock) if compile else table.stock, problem)
        for mode, compile in MODES.items()
    }
    return lambda asked: {"seconds": seconds_of(calls[asked["name"]], asked["repeats"])}


if __name__ == "__main__":
    serve(partial(prepare, sys.argv[1], sys.argv[2], int(sys.argv[3])))
