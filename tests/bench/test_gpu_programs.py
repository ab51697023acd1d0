"""The programs of a GPU's first minutes, on a stand-in: smoke test, figures, counters, facts."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
import torch
from support.bench.fake_gpu import FAST, FakeGpu, fake_gpu

import mlpkern
from bench import ROOT, run
from bench import suites as tables
from bench.cuda import gpu
from bench.cuda import limits as cuda_limits
from bench.cuda import training as cuda_training
from bench.gpu import card, counters, first_figures, sanitizer_cases, smoke
from bench.gpu import stages as gpu_stages
from bench.ops import linear_tanh
from bench.training.case import training_case

pytestmark = pytest.mark.usefixtures("one_thread")


# The smoke test


@pytest.fixture
def checks(monkeypatch, tmp_path):
    """The rows of a smoke test of the reference backend, by name, and what the file holds."""
    monkeypatch.setattr(gpu, "Gpu", FakeGpu)
    monkeypatch.setattr(smoke, "STEPS", 4)
    small = {"narrow": ("", (11, 2, 3, (9,), 5)), "block": ("", (11, 2, 3, (9, 7), 5))}
    monkeypatch.setattr(smoke, "WAYS", small)

    def call():
        status = smoke.main(["--backend", "reference", "--out", str(tmp_path / "smoke.json")])
        kept = json.loads((tmp_path / "smoke.json").read_text())
        return {row["check"]: row for row in kept["checks"]}, status

    return call


def test_every_op_and_way_to_train_is_checked(checks, capsys):
    found, status = checks()
    assert status == 0
    for op in ("embedding_gather", "linear_tanh", "cross_entropy"):
        assert {f"{op} float32", f"{op} bfloat16"} <= found.keys()
    ways = [f"{way} {rule}" for way in ("narrow", "block") for rule in ("SGD", "AdamW")]
    for way in ways:
        assert found[f"train_steps, evaluate {way} tf32"]["passed"]
    assert all(row["results"] > 1 for row in found.values())
    assert "15 checks on reference, 0 wrong" in capsys.readouterr().out


def test_a_wrong_op_is_named_with_the_case_and_the_rest_goes_on(checks, monkeypatch, capsys):
    real = mlpkern.linear_tanh
    monkeypatch.setattr(mlpkern, "linear_tanh", lambda *args: real(*args) * 1.1)
    monkeypatch.setattr(mlpkern, "cross_entropy", lambda *args, **options: 1 / 0)
    found, status = checks()
    assert status == 1
    wrong = {name for name, row in found.items() if not row["passed"]}
    layers = {f"linear_tanh {precision}" for precision in ("float32", "tf32", "bfloat16")}
    assert wrong == {*layers, "cross_entropy float32", "cross_entropy bfloat16"}
    text = capsys.readouterr().out
    assert "WRONG linear_tanh float32" in text
    assert "ZeroDivisionError: division by zero" in text


@pytest.mark.parametrize("part", ["rate", "evaluate"])
def test_a_training_or_evaluation_that_is_off_by_a_thousandth_is_wrong(checks, monkeypatch, part):
    train_steps, evaluate = mlpkern.train_steps, mlpkern.evaluate

    def off(params):
        return 1 + 1e-3 * (params.embedding.dtype.itemsize == 4)

    if part == "rate":
        monkeypatch.setattr(
            mlpkern,
            "train_steps",
            lambda params, *data, **options: train_steps(
                params, *data[:-1], data[-1] * off(params) ** 2, **options
            ),
        )
    else:
        monkeypatch.setattr(
            mlpkern,
            "evaluate",
            lambda params, *data: (found := evaluate(params, *data))._replace(
                loss=found.loss * off(params)
            ),
        )
    found, status = checks()
    assert status == 1
    assert not found["train_steps, evaluate narrow SGD float32"]["passed"]
    assert found["linear_tanh float32"]["passed"]


def test_a_training_that_takes_another_way_is_no_check_of_this_one():
    run_ = smoke.Run(11, 2, 3, (9,), 5, {}, 2)
    with (
        mlpkern.use_backend("reference"),
        pytest.raises(RuntimeError, match="expected the way 'dealt out'"),
    ):
        smoke.run_errors(run_, "dealt out", "cpu")


def test_the_ways_are_those_that_explain_names():
    from mlpkern.cuda import models as backend

    for said, _ in smoke.WAYS.values():
        assert sum(said in way for way in backend._WAYS.values()) == 1


# The figures


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """A training and an op, both tiny."""
    fake_gpu(monkeypatch)
    monkeypatch.setattr(cuda_limits, "measure", lambda *args, **kwargs: FAST)
    monkeypatch.setattr(gpu, "Gpu", FakeGpu)
    monkeypatch.setattr(first_figures, "BUDGET_S", 0.0)
    monkeypatch.setattr(first_figures, "MIN_SAMPLE_S", 1e-5)
    step = training_case(D=3, H=7, N=5, stock_steps=2, run_steps=2, checked_steps=2)
    layer = linear_tanh.CUDA_CASES[0]
    layer = replace(layer, sizes={"N": 5, "K": 3, "H": 4})
    monkeypatch.setattr(first_figures, "MODELS", (step,))
    suites = {suite.name: suite for suite in tables.cuda_suites(FakeGpu())}
    small = [
        replace(suites["linear_tanh"], cases=(layer,)),
        replace(suites[run.TRAINING], cases=(*cuda_training.CASES, step), ours="run"),
    ]
    monkeypatch.setattr(first_figures, "cuda_suites", lambda gpu: small)

    def call(*more):
        out = tmp_path / "figures.json"
        status = first_figures.main(["--out", str(out), *more])
        return json.loads(out.read_text()), status

    return call


def test_training_comes_first_and_nothing_is_compiled(figures, capsys):
    result, status = figures()
    assert status == 0
    assert [case["op"] for case in result["cases"]] == [run.TRAINING, "linear_tanh"]
    names = [[row["provider"] for row in case["rows"]] for case in result["cases"]]
    training = ["lecture loop", "batches by chunk", "eager, CUDA graph", "run", "engine run"]
    assert names == [training, ["eager", "eager, CUDA graph", "cuda", "cuda, CUDA graph"]]
    assert all(row["median_s"] > 0 for case in result["cases"] for row in case["rows"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("• ")]
    assert [line.split()[1] for line in lines[-3:]] == [run.TRAINING, "linear_tanh", "clocks"]
    assert "steps/s" in lines[-3]
    assert "of limit" in lines[-2]
    limits = " ".join(lines[:-3])
    assert all(word in limits for word in ("copy", "DRAM", "bfloat16", "launch", "graph"))
    assert max(map(len, lines)) < gpu_stages.WIDEST


def test_a_wrong_kernel_has_no_time_and_is_told(figures, monkeypatch, capsys):
    real = mlpkern.linear_tanh
    monkeypatch.setattr(mlpkern, "linear_tanh", lambda *args: real(*args) * 1.1)
    _, status = figures()
    assert status == 1
    text = capsys.readouterr().out
    assert "cuda WRONG: output: error " in text
    assert "• REFUSED linear_tanh  32x30->200  float32, cuda: WRONG" in text


def test_cases_that_do_not_begin_are_named(figures, capsys):
    result, status = figures("--seconds", "0")
    assert (result["cases"], status) == ([], 3)
    assert capsys.readouterr().out.count("• not run: ") == 2


# The counters


TABLE = """==PROF== Connected to process 7
"ID","Kernel Name","gpu__time_duration.sum","sm__warps_active.avg.pct_of_peak_sustained_active"
"","","us","%"
"0","train_steps_narrow_kernel","1,234.5","20.5"
"1","linear_tanh_product_kernel","40.5","55"
"""


def fake_ncu(folder, monkeypatch, text):
    (folder / "ncu").write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    (folder / "ncu").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_counters_are_read_from_the_table_of_ncu(tmp_path, monkeypatch, capsys):
    fake_ncu(tmp_path, monkeypatch, TABLE)
    assert counters.main(["--out", str(tmp_path / "counters.json")]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "• train_steps_narrow_kernel: time 1,234.5 us, warps % 20.5",
        "• linear_tanh_product_kernel: time 40.5 us, warps % 55",
    ]
    assert len(json.loads((tmp_path / "counters.json").read_text())["kernels"]) == 2


@pytest.mark.parametrize(
    "said",
    ["==ERROR== ERR_NVGPUCTRPERM - no permission", "==ERROR== LibraryNotLoaded"],
)
def test_counters_that_may_not_be_read_are_no_failure(tmp_path, monkeypatch, capsys, said):
    fake_ncu(tmp_path, monkeypatch, said)
    assert counters.main([]) == 0
    reason = said.removeprefix("==ERROR== ")
    assert f"• no counters: ncu, status 0: {reason}" in capsys.readouterr().out
    monkeypatch.setattr(counters.shutil, "which", lambda name: None)
    assert counters.main([]) == 0
    assert "ncu is not installed" in capsys.readouterr().out


def test_the_counted_kernels_are_in_the_library():
    budget = ROOT / "tests" / "cuda" / "machine_code" / "budget.json"
    kernels = json.loads(budget.read_text())["kernels"]
    names = {name.split("<")[0] for name in kernels}
    assert set(counters.KERNELS) <= names


def test_ncu_is_asked_for_the_same_program():
    command = counters.command("ncu", counters.METRICS)
    assert command[command.index("--metrics") + 2] == sys.executable
    assert command[-1] == "--program"


# The facts of the machine


def test_the_facts_are_printed_in_lines(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(card, "Gpu", FakeGpu)
    monkeypatch.setattr(card, "driver_attributes", lambda: {"shared memory of a block": 49152})
    assert card.main(["--out", str(tmp_path / "card.json")]) == 0
    text = capsys.readouterr().out
    assert "• gpu: name Fake GPU 1" in text
    assert "• attributes: shared memory of a block 49152" in text
    found = json.loads((tmp_path / "card.json").read_text())
    assert found["tools"]["nvcc"]
    assert card.tool_version("no-such-program") == "missing"


def test_without_a_gpu_the_programs_say_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert card.main([]) == 1
    for main, arguments in (
        (smoke.main, []),
        (first_figures.main, []),
        (counters.main, ["--program"]),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    assert "• no GPU: " in capsys.readouterr().out


# The cases for the sanitizer


def test_the_cases_for_the_sanitizer_pass_on_plain_torch_and_catch_a_wrong_op(monkeypatch):
    assert sanitizer_cases.main(["reference"]) == 0
    real = mlpkern.linear_tanh
    monkeypatch.setattr(mlpkern, "linear_tanh", lambda *args: real(*args) * 1.01)
    assert sanitizer_cases.main(["reference"]) == 1


def test_the_sanitizer_s_runs_catch_a_wrong_step_and_a_wrong_evaluation(monkeypatch):
    assert sanitizer_cases.runs("cpu") == []
    train_steps, evaluate = mlpkern.train_steps, mlpkern.evaluate

    def rough(params, inputs, targets, batches, lr, **options):
        wrong = params.embedding.dtype == torch.float32
        return train_steps(params, inputs, targets, batches, lr * (1 + wrong), **options)

    monkeypatch.setattr(mlpkern, "train_steps", rough)
    assert len(sanitizer_cases.runs("cpu")) > 3
    monkeypatch.setattr(mlpkern, "train_steps", train_steps)

    def off(params, *data):
        measured = evaluate(params, *data)
        return measured._replace(
            loss=measured.loss * (1 + 0.01 * (measured.loss.dtype.itemsize == 4))
        )

    monkeypatch.setattr(mlpkern, "evaluate", off)
    assert len(sanitizer_cases.runs("cpu")) == len(sanitizer_cases.RUNS)
