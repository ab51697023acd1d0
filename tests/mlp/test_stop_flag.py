"""A flag that another thread sets ends a long call; signals leave other threads alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from support.backends import needs_native
from support.interrupts import (
    DELAY,
    SOON,
    alarm,
    assert_same,
    long_problem,
    start,
    train,
)
from support.train_problems import problem

import mlpkern
from mlpkern.mlp import pieces as pieces_module
from mlpkern.mlp.stop_flag import StopFlag, Stopped

pytestmark = pytest.mark.usefixtures("one_thread")


def in_a_thread(
    function: Callable[[], object],
) -> tuple[list[BaseException], threading.Thread]:
    """A list that gets the error ``function`` raises, and the thread that runs it."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(DELAY)
    return errors, thread


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_flag_ends_the_calls_of_its_thread(name, monkeypatch):
    if not mlpkern.backends()[name].available:
        pytest.skip(mlpkern.backends()[name].reason)
    monkeypatch.setattr(pieces_module, "FIRST", 4)
    case = long_problem(2)
    run, whole, flag = start(case, {}), start(case, {}), StopFlag()

    def work() -> None:
        with mlpkern.use_backend(name), flag.obeyed():
            train(case, run, len(case.batches), {})

    errors, thread = in_a_thread(work)
    flag.set()
    thread.join(SOON)
    assert [type(error) for error in errors] == [Stopped]
    assert run[1].step > 0
    with mlpkern.use_backend(name):
        train(case, whole, run[1].step, {})
    assert_same(run, whole)


@needs_native
def test_a_flag_ends_an_evaluation():
    case = problem(V=27, D=10, hidden=(2000, 2000), rows=300_000, N=1, S=1)
    flag = StopFlag()

    def work() -> None:
        with mlpkern.use_backend("cpu"), flag.obeyed():
            mlpkern.evaluate(case.params, case.inputs, case.targets)

    errors, thread = in_a_thread(work)
    flag.set()
    thread.join(SOON)
    assert [type(error) for error in errors] == [Stopped]


@needs_native
def test_a_signal_leaves_other_threads_alone():
    case = long_problem(steps=20_000)
    run, whole = start(case, {}), start(case, {})

    def work() -> None:
        with mlpkern.use_backend("cpu"):
            train(case, run, 20_000, {})

    with alarm(lambda *_: None, 0.05, again=0.05):
        errors, thread = in_a_thread(work)
        thread.join(60)
    assert errors == []
    with mlpkern.use_backend("cpu"):
        train(case, whole, 20_000, {})
    assert_same(run, whole)
