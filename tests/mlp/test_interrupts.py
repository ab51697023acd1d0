"""A signal during a long call is handled soon, between two steps, and changes no bit of a run."""

from __future__ import annotations

import ctypes
import signal
from functools import partial

import pytest
import torch
from support.backends import needs_native
from support.interrupts import (
    Alarm,
    alarm,
    assert_same,
    long_problem,
    raise_alarm,
    soon,
    start,
    train,
)
from support.train_problems import OPTIONS, Problem, problem

import mlpkern
from mlpkern import MLPParams, OptimizerState
from mlpkern.mlp import pieces as pieces_module
from mlpkern.mlp import training_call

pytestmark = pytest.mark.usefixtures("one_thread")


def check_interrupted(case: Problem, **options: object) -> None:
    """A run that an alarm ends is between two steps, and goes on with the bits of a whole run."""
    end = len(case.batches)
    stopped, whole = start(case, options), start(case, options)
    with soon():
        train(case, stopped, end, options)
    at = stopped[1].step
    assert 0 < at < end
    train(case, whole, at, options)
    assert_same(stopped, whole)
    for run in (stopped, whole):
        train(case, run, min(end, at + 20), options)
    assert_same(stopped, whole)


@needs_native
@pytest.mark.parametrize("models", [None, 2, 7])
@pytest.mark.parametrize("name", ["all of sgd", "adamw with decay"])
def test_a_handler_that_raises_finds_a_whole_number_of_steps(name, models, two_threads):
    options = {k: v for k, v in OPTIONS[name].items() if k != "lr"}
    with mlpkern.use_backend("cpu"):
        check_interrupted(long_problem(models), **options)


@pytest.fixture
def two_threads(one_thread: None) -> None:
    torch.set_num_threads(2)  # one_thread restores


@needs_native
def test_steps_that_threads_share(two_threads):
    case = problem(V=27, D=10, hidden=(500, 300), N=300, S=1, M=None)
    case.batches = case.batches.expand(20_000, -1)
    with mlpkern.use_backend("cpu"):
        check_interrupted(case, momentum=0.9)


@needs_native
def test_parameters_that_are_not_contiguous():
    case = long_problem(3)
    (weight, bias), *_ = case.params.hidden
    wide = torch.randn(3, 200, 60)
    wide[..., ::2] = weight
    gaps = MLPParams(case.params.embedding, [(wide[..., ::2], bias)], case.params.output)
    whole = start(case, {})
    state = OptimizerState.zeros(gaps)
    with soon(), mlpkern.use_backend("cpu"):
        train(case, (gaps, state), len(case.batches), {})
    with mlpkern.use_backend("cpu"):
        train(case, whole, state.step, {})
    assert_same((gaps, state), whole)


@pytest.mark.parametrize("models", [None, 2])
def test_backends_in_python(models, monkeypatch):
    monkeypatch.setattr(training_call, "PIECE_SECONDS", 0.02)
    monkeypatch.setattr(pieces_module, "FIRST", 4)
    case = long_problem(models, 40_000)
    with mlpkern.use_backend("reference"):
        train(case, start(case, {}), 1, {})  # the first call imports
        check_interrupted(case, momentum=0.9)


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_a_handler_that_returns_changes_nothing(name, monkeypatch):
    if not mlpkern.backends()[name].available:
        pytest.skip(mlpkern.backends()[name].reason)
    monkeypatch.setattr(training_call, "PIECE_SECONDS", 0.02)
    steps = 8_000 if name == "cpu" else 100
    case, seen = long_problem(3, 3 * steps), []
    run, whole, cut = (start(case, {"momentum": 0.9}) for _ in range(3))

    def look(*_: object) -> None:
        seen.append((run[0].clone(), run[1].clone()))

    options = {"momentum": 0.9, "hidden_dropout": 0.1}
    with mlpkern.use_backend(name):
        with alarm(look, 0.05, again=0.05):
            losses = train(case, run, steps, options)
        expected = train(case, whole, steps, options)
        between = [one for one in seen if 0 < one[1].step < steps]
        assert between
        train(case, cut, between[0][1].step, options)
    assert torch.equal(losses, expected)
    assert_same(run, whole)
    assert_same(between[0], cut)


@needs_native
def test_an_evaluation_ends_soon_or_runs_handlers_meanwhile():
    case = problem(V=27, D=10, hidden=(2000, 2000), rows=300_000, N=1, S=1)
    data = case.inputs, case.targets
    with mlpkern.use_backend("cpu"):
        with soon():
            mlpkern.evaluate(case.params, *data)
        few = [ids[:3000] for ids in data]
        expected, count = mlpkern.evaluate(case.params, *few), []
        with alarm(lambda *_: count.append(1), 0.05, again=0.05):
            result = mlpkern.evaluate(case.params, *few)
    assert count
    assert torch.equal(torch.stack(result), torch.stack(expected))


@needs_native
def test_the_wakeup_fd_of_others_gets_its_signals():
    import socket

    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno())
    try:
        with soon(), mlpkern.use_backend("cpu"):
            train(long_problem(), start(long_problem(), {}), 800_000, {})
        assert set(ours.recv(100)) == {signal.SIGALRM}
        assert signal.set_wakeup_fd(theirs.fileno()) == theirs.fileno()
    finally:
        signal.set_wakeup_fd(before)
        ours.close()
        theirs.close()


def test_what_belongs_together_is_done_without_a_byte_code_between():
    done: list[int] = []
    send = partial(getattr(ctypes.CDLL(None), "raise"), int(signal.SIGALRM))
    calls = [partial(done.append, 1), send, partial(done.append, 2), partial(done.append, 3)]
    with alarm(raise_alarm, 60), pytest.raises(Alarm):
        training_call.land(calls)
    assert done == [1, 2, 3]


def test_pieces_take_the_time_they_should(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(pieces_module.time, "perf_counter", lambda: now[0])
    cut = []
    for begin, end in pieces_module.pieces(100_000, 0.1):
        now[0] += (end - begin) * (1e-5 if begin < 50_000 else 1e-2)  # suddenly slower
        cut.append((begin, end))
    assert [begin for begin, _ in cut[1:]] == [end for _, end in cut[:-1]]
    assert cut[0][0] == 0
    assert cut[-1][1] == 100_000
    sizes = [end - begin for begin, end in cut]
    assert sizes[:4] == [64, 512, 4096, 10_000]
    assert sizes[-2] in (9, 10)  # rounded down
