"""Jobs of unequal length on the threads of the CPU, so that all of them end at about the same time.

A job is done in pieces. Each thread takes the job that needs the longest from here, does a piece of
it with kernels that use this thread alone, and puts it back. Where there are fewer jobs than
threads, their kernels share the threads. No kernel's bits depend on that.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from mlpkern import cpu
from mlpkern.mlp.stop_flag import StopFlag, Stopped

__all__ = ["Job", "kernel_threads", "run_jobs"]


@dataclass
class Job:
    """
    Attributes:
        pieces: does a piece of the work at every ``next``, from whichever thread; yields its steps
        left: how long the rest will take, in the same units for all jobs; inf where nobody knows
    """

    pieces: Generator[int, None, None]
    left: Callable[[], float]


def kernel_threads(device: torch.device) -> int:
    """How many jobs on ``device`` are worth doing at once: a GPU's kernels fill it alone."""
    compiled = not cpu.native_failure()
    return torch.get_num_threads() if device.type == "cpu" and compiled else 1


def run_jobs(jobs: Sequence[Job], threads: int, report: Callable[[int], None]) -> None:
    """Does all of ``jobs``, ``threads`` at a time; ``report`` gets the steps of every piece.

    After an error in one, or in a handler of a signal (Ctrl-C), the pieces under way end within a
    fraction of a second, finished or not, and it is raised.
    """
    try:
        if min(threads, len(jobs)) <= 1:
            for job in jobs:
                for steps in job.pieces:
                    report(steps)
        else:
            _Crew(jobs, threads, report).do_all()
    finally:
        for job in jobs:
            job.pieces.close()


class _Crew:
    """Threads at work on what is left of the jobs."""

    def __init__(self, jobs: Sequence[Job], threads: int, report: Callable[[int], None]) -> None:
        self._waiting = list(jobs)
        self._threads, self._report = threads, report
        self._lock = threading.Lock()
        self.at_work = min(threads, len(jobs))
        self._stop = StopFlag()  # no signal reaches these threads

    def do_all(self) -> None:
        with ThreadPoolExecutor(self.at_work, "mlpkern-job") as pool:
            # the backend chosen by use_backend is part of the context
            ends = [
                pool.submit(contextvars.copy_context().run, self.work) for _ in range(self.at_work)
            ]
            try:
                errors = [error for end in ends if (error := end.exception())]
            finally:
                self._stop.set()
        for error in errors:
            if not isinstance(error, Stopped):  # what made the others stop
                raise error

    def work(self) -> None:
        """What each thread does."""
        try:
            with self._stop.obeyed():
                self._work()
        except BaseException:
            self._stop.set()
            raise
        finally:
            with self._lock:
                self.at_work -= 1

    def _work(self) -> None:
        job: Job | None = None
        while job := self._longest(job):
            with self._lock:
                share = self._threads // self.at_work
            before = cpu.limit_threads(share)
            try:
                steps = next(job.pieces, None)
            finally:
                cpu.limit_threads(before)
            if steps is None:
                job = None
                continue
            with self._lock:
                self._report(steps)

    def _longest(self, done: Job | None) -> Job | None:
        """Puts back what a piece was ``done`` of and takes the job that needs the longest."""
        with self._lock:
            if done:
                self._waiting.append(done)
            if self._stop.is_set() or not self._waiting:
                return None
            at = max(range(len(self._waiting)), key=lambda i: self._waiting[i].left())
            return self._waiting.pop(at)
