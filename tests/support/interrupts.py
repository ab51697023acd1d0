"""Alarms during long calls of ``train_steps``, and the comparison of two runs."""

from __future__ import annotations

import contextlib
import gc
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
import torch
from support.train_problems import Problem, problem

import mlpkern
from mlpkern import MLPParams, OptimizerState

DELAY = 0.25  # seconds before an alarm
SOON = 2.0  # seconds in which a call ends after it; an idle machine needs a tenth

Run = tuple[MLPParams, OptimizerState]


class Alarm(Exception):
    """The error that the handlers of these tests raise."""


def raise_alarm(_signal: int, frame: FrameType | None) -> None:
    # Python ignores errors raised while it drops an object; the alarm then comes again.
    code = frame.f_code if frame else None
    if code and (code.co_filename == weakref.__file__ or code.co_name == "__del__"):
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        return
    raise Alarm


@contextlib.contextmanager
def alarm(handler: Callable[..., object], delay: float = DELAY, again: float = 0) -> Iterator[None]:
    """In the block, ``handler`` runs after ``delay`` seconds, then every ``again`` seconds."""
    gc.collect()  # collecting what other tests left may take longer than the delay
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, delay, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """An alarm raises in the block, which must end within SOON seconds."""
    began = time.perf_counter()
    with alarm(raise_alarm), pytest.raises(Alarm):
        yield
    assert time.perf_counter() - began < DELAY + SOON


def long_problem(models: int | None = None, steps: int = 800_000) -> Problem:
    """A model whose step takes at least 20 us; all steps use the same batch."""
    case = problem(V=27, D=10, hidden=(200,), N=32, S=1, M=models)
    case.batches = case.batches.expand(steps // (models or 1), -1)
    case.lr = 0.001
    return case


def start(case: Problem, options: dict) -> Run:
    kept = {name: options[name] for name in ("optimizer", "momentum") if name in options}
    return case.params.clone(), OptimizerState.zeros(case.params, **kept)


def train(case: Problem, run: Run, end: int, options: dict) -> torch.Tensor:
    """The losses of a run up to step ``end``."""
    params, state = run
    data = (case.inputs, case.targets, case.batches[state.step : end], case.lr)
    return mlpkern.train_steps(params, *data, state=state, **options)


def assert_same(one: Run, two: Run) -> None:
    for a, b in zip(one[0].tensors(), two[0].tensors(), strict=True):
        assert torch.equal(a, b)
    theirs = two[1].state_dict()
    for name, tensor in one[1].state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
