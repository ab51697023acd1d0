"""Training steps of the benchmark on a GPU: every way of taking them, on a stand-in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.bench.fake_gpu import CUDA_SETTINGS, fake_gpu

from bench import suites as tables
from bench.cuda import training as cuda_training
from bench.cuda.device_run import GRAPH_STEPS, DeviceRun, GraphedSteps
from bench.cuda.providers import GRAPH
from bench.training.case import cost, training_case
from bench.training.stock_loops import loss_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def gpu(monkeypatch):
    return fake_gpu(monkeypatch)


TINY = training_case(D=3, H=7, N=5, stock_steps=3, run_steps=6, checked_steps=4)


def test_every_way_of_a_training_step_agrees_with_the_lecture_loop(gpu):
    settings = CUDA_SETTINGS
    contest = cuda_training.cuda_contest(TINY, cost(TINY), settings, gpu)
    names = [provider.name for provider in contest.providers]
    assert len(set(names)) == len(names)
    ours = {"run", "engine run", "ops", "ops" + GRAPH, "engine ops"}
    assert {"lecture loop", "eager" + GRAPH} <= set(names)
    assert ours | {"ops on triton", "ops on triton" + GRAPH, "engine ops on triton"} <= set(names)
    for provider in contest.providers:
        with provider.switch():
            prepared = provider.make()
            for _ in range(2):
                checks = contest.yardstick.check(prepared.results())
                assert [c.message() for c in checks if not c.passed] == [], provider.name
            prepared.call()
        steps = GRAPH_STEPS if provider.name.endswith(GRAPH) else TINY.stock_steps
        runs = provider.name in ("run", "engine run")
        assert prepared.units == (TINY.run_steps if runs else steps)


@pytest.mark.parametrize("dtype", ["float32", "tf32"])
def test_every_way_of_training_many_models_agrees_with_the_lecture_loop(gpu, dtype):
    case = replace(TINY, sizes={**TINY.sizes, "M": 3}, dtype=dtype)
    contest = cuda_training.cuda_contest(case, cost(case), CUDA_SETTINGS, gpu)
    stock = ["batched products", "vmap"]
    graphs = [name + GRAPH for name in stock]
    assert [p.name for p in contest.providers] == ["lecture loop", *stock, *graphs, "run"]
    for provider in contest.providers:
        with provider.switch():
            prepared = provider.make()
            checks = contest.yardstick.check(prepared.results())
            assert [c.message() for c in checks if not c.passed] == [], provider.name
            prepared.call()
        steps = {"lecture loop": case.stock_steps, "run": case.run_steps}
        assert prepared.units == 3 * steps.get(provider.name, GRAPH_STEPS)


def test_the_cases_of_train_steps_are_of_both_precisions_for_one_model_and_for_many():
    found = {(case.sizes["M"], case.dtype) for case in cuda_training.RUN_CASES}
    assert found == {(1, "float32"), (1, "tf32"), (132, "float32"), (132, "tf32")}
    runs, steps = tables.cuda_suites(None)[-2:]
    assert (runs.ours, runs.ours_graph, runs.cases) == ("run", "run", cuda_training.RUN_CASES)
    assert (steps.ours, steps.ours_graph) == ("ops", "engine ops")


def test_capturing_steps_trains_nothing_and_replaying_does(gpu):
    untouched = DeviceRun(TINY, gpu.device)
    captured = DeviceRun(TINY, gpu.device)
    step = cuda_training.eager_step(loss_of)(captured)
    graph = GraphedSteps(captured, step, gpu, steps=2)
    for a, b in zip(untouched.values, captured.values, strict=True):
        assert torch.equal(a, b)
    graph.call()
    assert not torch.equal(untouched.values[1], captured.values[1])


def test_the_lecture_loop_draws_its_own_batches_after_the_checked_ones():
    trained = DeviceRun(TINY, "cpu")
    rows = trained.checked_rows(2)
    assert torch.equal(trained.draw(), rows[0])
    assert torch.equal(trained.draw(), rows[1])
    assert trained.draw().shape == (5,)
