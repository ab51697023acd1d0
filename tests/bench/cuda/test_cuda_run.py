"""A run of the benchmark on a GPU: its order, its time, what breaks, the population at its end."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from support.bench.fake_gpu import CASE, CUDA_SETTINGS, FAST, FakeGpu, fake_gpu, suite_of
from support.bench.tiny import MACHINE
from support.lm.words import make_words

from bench import run, yardsticks
from bench import suites as tables
from bench.core import limits
from bench.core.files import keep_data
from bench.cuda import limits as cuda_limits
from bench.cuda import population_run
from bench.cuda import providers as cuda_providers
from bench.shown.summary import summary_lines
from bench.shown.training import population_lines
from bench.training.case import training_case
from bench.training.names_run import Plan
from mlpkern.lm import TrainConfig, build_dataset

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
        save=partial(keep_data, path=tmp_path / "result.json"),
    )
    (left,) = seen
    assert [case["op"] for case in left["cases"]] == ["training_step"]
    assert left["cases"][0]["rows"][0]["median_s"] > 0
    assert not left["complete"]


# --- time, memory, errors -------------------------------------------------------------------------


def test_no_case_begins_after_the_time_is_up(gpu):
    result = run.run([(suite_of(gpu), CASE)], CUDA_SETTINGS, gpu=gpu, seconds=0)
    assert result["cases"] == []
    assert list(result["not_run"]) == [CASE.name]
    assert not result["complete"]
    assert "not run" in "\n".join(summary_lines(result))


def test_autotuning_is_left_out_when_half_of_the_time_is_gone(gpu, monkeypatch):
    seen = []

    def spy(suite, case, settings, measured):
        seen.append(settings.autotune)
        return {}

    monkeypatch.setattr(run, "run_case", spy)
    monkeypatch.setattr(run, "case_lines", lambda case: [])
    monkeypatch.setattr(run, "summary_lines", lambda result: [])
    monkeypatch.setattr(run, "rate", lambda *args: None)
    times = iter([0.0, 1.0, 1.0, 60.0, 60.0, *[61.0] * 9])
    monkeypatch.setattr(run.time, "monotonic", lambda: next(times))
    settings = replace(CUDA_SETTINGS, quick=False, compile=True)
    result = run.run([(suite_of(gpu), CASE)] * 2, settings, gpu=gpu, seconds=100)
    assert seen == [True, False]
    assert [case["hurried"] for case in result["cases"]] == [False, True]


def test_a_case_without_enough_memory_is_named_and_the_next_is_run(gpu):
    cases = [(suite_of(FakeGpu(memory_bytes=1000)), CASE), (suite_of(gpu), CASE)]
    result = run.run(cases, CUDA_SETTINGS, gpu=gpu)
    assert len(result["cases"]) == 1
    assert "needs about" in result["not_run"][CASE.name]
    assert gpu.released == 2  # what a case held is free when the next begins


def test_a_gpu_that_takes_no_more_work_ends_the_run(gpu, monkeypatch):
    def lost(*args):
        raise RuntimeError("CUDA error: an illegal memory access\nsecond line")

    def no_answer():
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(run, "run_case", lost)
    monkeypatch.setattr(gpu, "synchronize", no_answer)
    result = run.run([(suite_of(gpu), CASE)] * 3, CUDA_SETTINGS, gpu=gpu)
    assert len(result["errors"]) == 2
    assert result["errors"][0].endswith("an illegal memory access")
    assert run.broken(result)


def test_sigterm_keeps_what_was_measured():
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), run.ended_by_sigterm():
        stop()
    assert signal.getsignal(signal.SIGTERM) is before


def test_without_a_gpu_the_command_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for main, arguments in ((run.main, ["--device", "cuda"]), (yardsticks.main, [])):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    assert "--device cuda: " in capsys.readouterr().err


# --- the population -------------------------------------------------------------------------------


def test_a_population_is_trained_at_both_precisions_and_told(monkeypatch):
    seen = []
    real = population_run.with_cuda_backend

    def plain(name, dtype):
        seen.append((name, dtype))
        return cuda_providers.with_precision(dtype)

    assert real is cuda_providers.with_cuda_backend
    monkeypatch.setattr(population_run, "with_cuda_backend", plain)
    monkeypatch.setattr(population_run, "WARM_STEPS", 2)
    config = TrainConfig(embedding_dim=3, hidden=(7,), batch_size=5, steps=20)
    dataset = build_dataset(make_words(), block_size=3)
    plan = SimpleNamespace(config=lambda: config, dataset=lambda _: dataset, file=None)
    result = population_run.train_population(plan, "cpu", models=3)
    assert seen == [("cuda", "float32"), ("cuda", "tf32")]
    assert (result["models"], result["steps"]) == (3, 20)
    for run_ in result["runs"].values():
        assert run_["seconds"] > 0
        assert run_["dev_best"] <= run_["dev_mean"] < 4
    text = "\n".join(population_lines(result))
    assert "population of 3 models, 20 steps each" in text
    assert "tf32" in text
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_population_that_breaks_costs_no_case(gpu, monkeypatch, capsys):
    def broken(plan, device):
        raise RuntimeError("no memory\nand more")

    monkeypatch.setattr(run, "train_population", broken)
    result = run.run([], CUDA_SETTINGS, Plan(short=True), gpu=gpu)
    assert result["population"] == {"reason": "RuntimeError: no memory"}
    assert result["complete"]
    assert "population: not run: RuntimeError: no memory" in capsys.readouterr().out


def test_a_run_on_a_cpu_has_no_gpu(monkeypatch):
    monkeypatch.setattr(limits, "measure", lambda *args, **kwargs: MACHINE)
    result = run.run([], replace(CUDA_SETTINGS, device="cpu"))
    assert result["device"] == "cpu"
    assert "gpu" not in result["machine"]
    assert "triton" not in result["versions"]
