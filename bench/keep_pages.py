"""Stock providers under a malloc that keeps its pages, in a process of their own.

glibc gives large blocks back to the system as soon as they are freed, so every step of a stock
program faults the pages of its outputs in again. Two environment variables stop that, and they only
work when set before a process starts. The process started here holds one case; the timer takes its
samples in turns with those of all other providers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench.core.case import Case, OpTable, forward_backward
from bench.core.process import Process
from bench.core.providers import compiled
from bench.core.timer import RemoteContestant, seconds_of

ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000"}
MODES = {"eager, malloc keeps pages": False, "compile, malloc keeps pages": True}


def modes(compile: bool) -> list[str]:
    """Names of the rows, those that need torch.compile only if `compile`."""
    return [name for name, compiles in MODES.items() if compile or not compiles]


class Worker(Process):
    """A process that holds the stock providers of one case."""

    def __init__(self, table: OpTable, case: Case, threads: int, *, compile: bool = True):
        self._modes = modes(compile)
        super().__init__(prepare, table, case, threads, environment=ENVIRONMENT)
        try:
            self.receive()
        except BaseException:
            self.close()
            raise

    def contestants(self) -> list[RemoteContestant]:
        return [RemoteContestant(name, partial(self.sample, name)) for name in self._modes]

    def sample(self, name: str, repeats: int) -> float:
        """Seconds of `repeats` calls, measured inside the process by the same timer."""
        self.send((name, repeats))
        return float(self.receive())


def prepare(table: OpTable, case: Case, threads: int) -> Callable[[tuple[str, int]], float]:
    """In the process: builds the case; what it returns gives the seconds of a sample.

    A provider compiles at its first call; the timer does not use the first sample.
    """
    torch.set_num_threads(threads)
    problem = table.problem(case)
    calls = {
        mode: forward_backward(compiled(table.stock) if compiles else table.stock, problem)
        for mode, compiles in MODES.items()
    }

    def answer(asked: tuple[str, int]) -> float:
        name, repeats = asked
        return seconds_of(calls[name], repeats)

    return answer
