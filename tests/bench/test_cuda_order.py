"""What the benchmark of a GPU measures first, and what it has kept when it is ended early."""

from __future__ import annotations

import json
from functools import partial

import pytest
from support.bench_fake_gpu import CASE, CUDA_SETTINGS, FAST, fake_gpu, suite_of

from bench import result_files, run
from bench import suites as tables
from bench.cuda import limits as cuda_limits
from bench.training.case import training_case
from bench.training.names_run import Plan

pytestmark = pytest.mark.usefixtures("one_thread")
STEP = training_case(D=3, H=7, N=5, stock_steps=2, run_steps=2, checked_steps=2)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(cuda_limits, "measure", lambda *args, **kwargs: FAST)
    return fake_gpu(monkeypatch)


@pytest.fixture
def log(monkeypatch):
    """What is run, by name, in order; none of it takes time."""
    called = []
    monkeypatch.setattr(run, "run_case", lambda suite, *_: called.append(suite.name) or {})
    monkeypatch.setattr(run, "train_population", lambda *_: called.append("population") or {"a": 1})
    monkeypatch.setattr(run, "population_lines", lambda result: [])
    for name in ("case_lines", "summary_lines"):
        monkeypatch.setattr(run, name, lambda result: [])
    monkeypatch.setattr(run, "rate", lambda *args: None)
    return called


def test_all_of_training_comes_before_the_ops(gpu, log):
    cases = run.training_first(run.chosen(run.parse([]), tables.cuda_suites(gpu)))
    run.run(cases, CUDA_SETTINGS, Plan(short=True), gpu=gpu)
    steps = sum(len(s.cases) for s in tables.cuda_suites(gpu) if s.name == "training_step")
    assert log[: steps + 1] == ["training_step"] * steps + ["population"]
    assert {"training_step", "population"}.isdisjoint(log[steps + 1 :])
    assert len(log) == len(cases) + 1


def test_a_selection_without_ops_has_its_population_too(gpu, log):
    run.run([(tables.cuda_suites(gpu)[-1], STEP)], CUDA_SETTINGS, Plan(short=True), gpu=gpu)
    assert log == ["training_step", "population"]


def test_a_run_that_is_killed_has_left_the_cases_before(gpu, tmp_path, monkeypatch):
    training = tables.cuda_suites(gpu)[-1]
    real, seen = run.run_case, []

    def spy(suite, *args):
        if suite is not training:  # here SIGKILL would come: what lies there is all that is left
            seen.append(json.loads((tmp_path / "result.json").read_text()))
        return real(suite, *args)

    monkeypatch.setattr(run, "run_case", spy)
    cases = [(training, STEP), (suite_of(gpu), CASE)]
    run.run(
        cases,
        CUDA_SETTINGS,
        gpu=gpu,
        save=partial(result_files.keep_data, path=tmp_path / "result.json"),
    )
    (left,) = seen
    assert [case["op"] for case in left["cases"]] == ["training_step"]
    assert left["cases"][0]["rows"][0]["median_s"] > 0
    assert not left["complete"]
