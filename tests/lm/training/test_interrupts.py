"""Signals during long calls of the language model."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

import pytest
import torch
from support.backends import needs_native
from support.interrupts import Alarm, alarm, raise_alarm, soon
from support.lm.training import CONFIG, DATASET, same_bits, trainer

from mlpkern import lm
from mlpkern.lm.training.stop_signal import StopSignal

LONG = replace(CONFIG, hidden=(200,), batch_size=32, steps=2_000_000, log_every=1_000_000)


@needs_native
def test_the_learning_rate_finder():
    model = trainer("run", replace(LONG, hidden=(200, 200))).state.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with soon():
        lm.lr_finder(model, DATASET.splits["train"], steps=200_000)
    assert same_bits(model.state_dict(), before)


@needs_native
def test_the_rate_of_a_run():
    with soon():
        lm.find_lr(LONG, DATASET)


@needs_native
@pytest.mark.parametrize("threads", [1, 2])
def test_a_population_in_threads(threads):
    torch.set_num_threads(threads)
    with soon():
        lm.population([LONG, replace(LONG, hidden=(190,))], DATASET)


@pytest.mark.parametrize("name", [pytest.param("run", marks=needs_native), "stock"])
def test_a_trainer_goes_on_after_a_handler_that_raised(name):
    config = replace(CONFIG, steps=4_000 if name == "run" else 500, momentum=0.9)
    run, whole = trainer(name, config), trainer(name, config)
    whole.train()
    seen = []

    def handler(*_: object) -> None:
        seen.append(run.state.step)
        raise Alarm

    while run.state.step < config.steps:
        with alarm(handler, 0.02):
            try:
                run.train()
                time.sleep(0.05)  # an alarm that came too late is none of the next train
            except Alarm:
                continue
    assert same_bits(run.state.model.state_dict(), whole.state.model.state_dict())


def test_signals_wait_and_then_find_their_handlers():
    seen = []
    with alarm(lambda number, frame: seen.append((number, frame)), 60):
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGALRM)
            signal.raise_signal(signal.SIGALRM)
            assert seen == []
            assert stop.received is None
            stop.deliver()
            assert [number for number, _ in seen] == [signal.SIGALRM]
            signal.raise_signal(signal.SIGALRM)
        assert len(seen) == 2
        signal.raise_signal(signal.SIGALRM)
        assert len(seen) == 3


def test_a_handler_set_meanwhile_stays():
    def other(*_: object) -> None: ...

    with alarm(lambda *_: signal.signal(signal.SIGALRM, other), 60):
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGALRM)
            stop.deliver()
        assert signal.getsignal(signal.SIGALRM) is other


def test_the_second_interrupt_gets_out_and_others_still_wait():
    def twice() -> None:
        with StopSignal() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.received == signal.SIGINT
            signal.raise_signal(signal.SIGALRM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    with alarm(raise_alarm, 60), pytest.raises(Alarm):
        twice()


def test_the_first_chunk_may_be_of_slow_steps(monkeypatch):
    run = trainer("stock")
    chunk = run.engine.run_chunk

    def interrupted_chunk(state, steps):
        signal.raise_signal(signal.SIGINT)
        return chunk(state, steps)

    monkeypatch.setattr(run.engine, "run_chunk", interrupted_chunk)
    with pytest.raises(lm.Interrupted) as error:
        run.train()
    assert error.value.step == 1
