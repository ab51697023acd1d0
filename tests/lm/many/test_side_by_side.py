"""Jobs on several threads: each piece once, the longest first, nothing goes on after an error."""

from __future__ import annotations

import threading

import pytest
import torch
from support.backends import needs_native

import mlpkern
from mlpkern import cpu
from mlpkern.lm.many.jobs import Job, _Crew, kernel_threads, run_jobs
from mlpkern.registry import select


def counting_job(pieces, done, name, left=None):
    """A job of ``pieces`` pieces of 10 steps that writes its name in ``done`` at each."""
    rest = [pieces]

    def work():
        while rest[0]:
            rest[0] -= 1
            done.append(name)
            yield 10

    return Job(work(), left or (lambda: rest[0]))


@needs_native
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_piece_is_done_once(threads):
    done, reported = [], []
    run_jobs([counting_job(n, done, n) for n in (1, 7, 3, 0)], threads, reported.append)
    assert sorted(done) == [1] + [3] * 3 + [7] * 7
    assert reported == [10] * 11


def test_the_job_that_needs_the_longest_is_next():
    done = []
    jobs = [counting_job(n, done, n) for n in (2, 5, 4)]
    crew = _Crew(jobs, 1, lambda _: None)
    crew.work()
    assert done == [5, 4, 5, 4, 5, 2, 4, 5, 2, 4, 5]  # of equals the one that waits longer
    unknown = counting_job(1, done, "?", left=lambda: float("inf"))
    assert _Crew([*jobs, unknown], 1, lambda _: None)._longest(None) is unknown


@needs_native
def test_kernels_have_a_thread_each_and_all_of_them_for_the_last_job():
    torch.set_num_threads(4)
    both, seen = threading.Barrier(2), {"short": [], "long": []}

    def work(name, alone):
        for _ in range(3):
            both.wait(60)
            seen[name].append(mlpkern._C.num_threads())
            yield 1
        for _ in range(alone):
            while crew.at_work > 1:  # until the other thread has found nothing to do
                pass
            seen[name].append(mlpkern._C.num_threads())
            yield 1

    jobs = [Job(work("short", 0), lambda: 1.0), Job(work("long", 2), lambda: 2.0)]
    crew = _Crew(jobs, 4, lambda _: None)
    threads = [threading.Thread(target=crew.work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen["short"] == [2, 2, 2]
    assert seen["long"][:3] == [2, 2, 2]
    assert seen["long"][-1] == 4
    assert mlpkern._C.num_threads() == 4


@needs_native
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_ends_the_others_after_their_piece(error):
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    def failing():
        yield 1
        raise error("this one")

    jobs = [Job(work, lambda: 1.0) for work in (endless(), failing(), endless())]
    with pytest.raises(error, match="this one"):
        run_jobs(jobs, 2, lambda _: None)
    assert len(closed) == 2


@needs_native
def test_an_error_of_the_report_ends_all():
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs([counting_job(9, [], n) for n in range(4)], 2, interrupt)


@needs_native
def test_the_chosen_backend_is_that_of_the_caller():
    found = []

    def work():
        found.append(select("train_steps", torch.zeros(1)).__name__)
        yield 1

    with mlpkern.use_backend("reference"):
        run_jobs([Job(work(), lambda: 1.0) for _ in range(4)], 2, lambda _: None)
    assert found == ["mlpkern.reference.backend"] * 4


def test_how_many_at_once(monkeypatch):
    torch.set_num_threads(3)
    assert kernel_threads(torch.device("cuda")) == 1
    monkeypatch.setattr(cpu, "native_failure", lambda: "")
    assert kernel_threads(torch.device("cpu")) == 3
    monkeypatch.setattr(cpu, "native_failure", lambda: "no compiler")
    assert kernel_threads(torch.device("cpu")) == 1
