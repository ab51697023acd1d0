"""The training steps of the benchmark: every way of taking them checked on tiny cases."""

from __future__ import annotations

import pytest
import torch
from bench_tiny import SETTINGS

from bench import training_step
from bench.stock_training import adamw_step, lecture_loop, step_loop, stock_results
from bench.training_case import TWO_MODELS, cost, training_case
from bench.two_processes import SideBySide

TINY = {"D": 3, "H": 7, "N": 5, "stock_steps": 2, "run_steps": 3}


@pytest.mark.parametrize(
    "case",
    [
        training_case(**TINY, one_core=True),
        training_case(**TINY, M=2, one_core=True),
        training_case(**{**TINY, "T": 2, "N": 64}, optimizer="adamw", checked_steps=5),
        training_case(**TINY, V=31, T=1, checked_steps=3),
    ],
    ids=["one model", "two models", "adamw", "other ids"],
)
def test_training_step_providers_agree_with_the_lecture_loop(case, monkeypatch):
    monkeypatch.setattr(training_step, "SideBySide", FakeProcesses)
    contest = training_step.contest(case, cost(case), SETTINGS)
    names = [provider.name for provider in contest.providers]
    assert len(set(names)) == len(names)
    assert {"run", "ops", "lecture loop"} <= set(names)
    for provider in contest.providers:
        if provider.backend == "cpu":
            continue  # judged by the same rule wherever the library is built
        with provider.switch():
            prepared = provider.make()
            checks = contest.yardstick.check(prepared.results())
            prepared.call()
        assert [c.message() for c in checks if not c.passed] == [], provider.name
        steps = case.run_steps if provider.name.startswith("run") else case.stock_steps
        assert prepared.units == steps * case.sizes["M"]


class FakeProcesses:
    """In the place of processes, which take seconds to start."""

    def __init__(self, case, loop):
        self.steps = []

    def take(self, steps):
        self.steps.append(steps)

    def close(self):
        self.steps.clear()


def test_the_adamw_to_be_compiled_is_that_of_torch():
    case = training_case(**{**TINY, "N": 64}, optimizer="adamw", checked_steps=6)
    exact = stock_results(case, lecture_loop, torch.float64)
    written_out = stock_results(case, step_loop(adamw_step), torch.float64)
    for a, b in zip(written_out, exact, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_small_steps_of_run_use_a_core_per_model():
    assert [training_case(M=m, one_core=True).cores(4) for m in (1, 2, 9)] == [1, 2, 4]
    assert training_case().cores(4) == 4


def test_models_side_by_side_take_their_steps_in_processes_that_end():
    both = SideBySide(TWO_MODELS, "lecture loop")
    try:
        both.take(2)
    finally:
        both.close()
    assert all(process._process.poll() is not None for process in both._processes)
