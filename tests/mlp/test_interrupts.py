"""Signals during a long call: answered soon, with a whole number of steps, and no bit changes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import pytest
import torch
from support.train_problems import OPTIONS, Problem, problem

import mlpkern
from mlpkern import MLPParams, OptimizerState
from mlpkern.mlp import pieces as pieces_module
from mlpkern.mlp import training_call
from mlpkern.mlp.stop_flag import StopFlag, Stopped

SOON = 2.0  # seconds; a tenth of it on a machine that has nothing else to do
DELAY = 0.25

needs_native = pytest.mark.skipif(
    not mlpkern.backends()["cpu"].available, reason=mlpkern.backends()["cpu"].reason
)
pytestmark = pytest.mark.usefixtures("one_thread")
Run = tuple[MLPParams, OptimizerState]


class Alarm(Exception):
    """What the handlers of these tests raise."""


def raise_alarm(_signal: int, frame: FrameType | None) -> None:
    # Python ignores what is raised while it drops an object: then a moment later.
    code = frame.f_code if frame else None
    if code and (code.co_filename == weakref.__file__ or code.co_name == "__del__"):
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        return
    raise Alarm


@contextlib.contextmanager
def alarm(handler: Callable[..., object], delay: float = DELAY, again: float = 0) -> Iterator[None]:
    """Within, ``handler`` runs after ``delay`` seconds, and then every ``again`` seconds."""
    gc.collect()  # a collection of what other tests left takes longer than the delay
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, delay, again)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def soon() -> Iterator[None]:
    """Within, an alarm raises, and ends the block soon."""
    began = time.perf_counter()
    with alarm(raise_alarm), pytest.raises(Alarm):
        yield
    assert time.perf_counter() - began < DELAY + SOON


def long_problem(models: int | None = None, steps: int = 800_000) -> Problem:
    """A model whose step takes 20 us and more; the same batch in all steps."""
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


def check_interrupted(case: Problem, **options: object) -> None:
    """A run that an alarm ends stands at a whole step, and can go on to the bits of one run."""
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


def in_a_thread(function: Callable[[], object]) -> list[BaseException]:
    """Starts ``function`` in a thread; what it raises is in the list once it has ended."""
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
