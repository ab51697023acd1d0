"""Schedules jobs of unequal length on CPU threads so that all end at about the same time.

A job consists of pieces. Each thread takes the job with the most time left, does one piece of it
with kernels that use this thread alone, and puts it back. With fewer jobs than threads, the kernels
share the threads. The bits of a kernel do not depend on its number of threads.
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


@dataclass
class Job:
    """Work that can be done in pieces.

    Attributes:
        pieces: does a piece at every ``next``, on any thread; yields the steps of the piece
        left: the time that the rest will take, in the same unit for all jobs; inf if unknown
    """

    pieces: Generator[int, None, None]
    left: Callable[[], float]


def kernel_threads(device: torch.device) -> int:
    """How many jobs to run at once on ``device``; one on a GPU, which a single job fills."""
    compiled = device.type == "cpu" and cpu.status()[0]
    return torch.get_num_threads() if compiled else 1


def run_jobs(jobs: Sequence[Job], threads: int, report: Callable[[int], None]) -> None:
    """Does all of ``jobs``, ``threads`` at a time; calls ``report`` with the steps of every piece.

    An exception in a job or in a signal handler (Ctrl-C) stops the pieces under way within a
    fraction of a second, unfinished, and is then raised.
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
    """The threads that share the jobs."""

    def __init__(self, jobs: Sequence[Job], threads: int, report: Callable[[int], None]) -> None:
        self._waiting = list(jobs)
        self._threads, self._report = threads, report
        self._lock = threading.Lock()
        self.at_work = min(threads, len(jobs))
        self._stop = StopFlag()  # signals do not reach these threads

    def do_all(self) -> None:
        with ThreadPoolExecutor(self.at_work, "mlpkern-job") as pool:
            # the backend chosen by use_backend is a context variable
            ends = [
                pool.submit(contextvars.copy_context().run, self.work) for _ in range(self.at_work)
            ]
            try:
                errors = [error for end in ends if (error := end.exception())]
            finally:
                self._stop.set()
        for error in errors:
            if not isinstance(error, Stopped):  # the error that stopped the others
                raise error

    def work(self) -> None:
        """The function of each thread."""
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
        """Puts back the job of which a piece was ``done``, takes the one with the most left."""
        with self._lock:
            if done:
                self._waiting.append(done)
            if self._stop.is_set() or not self._waiting:
                return None
            at = max(range(len(self._waiting)), key=lambda i: self._waiting[i].left())
            return self._waiting.pop(at)
