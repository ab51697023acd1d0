"""Results of the benchmark of a GPU: limits, the run as a whole, its report, the README's table."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.bench_fake_gpu import CASE, CUDA_SETTINGS, FAST, FakeGpu, fake_gpu, suite_of
from support.bench_tiny import MACHINE
from support.lm_words import make_words

from bench import report, result_files, run, yardsticks
from bench import suites as tables
from bench.core import limits
from bench.core.case import Cost
from bench.core.providers import with_threads
from bench.cuda import limits as cuda_limits
from bench.cuda import population_run
from bench.cuda import providers as cuda_providers
from bench.gpu import sanitizer_cases
from bench.shown.cases import first_call_lines
from bench.shown.markdown import GPU_TABLE, NOT_MEASURED, gpu_markdown
from bench.shown.summary import TRITON_COLUMNS, summary_lines
from bench.shown.text import WIDTH, line
from bench.shown.training import population_lines
from bench.training.case import training_case
from bench.training.names_run import Plan
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.words.data import build_dataset

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def gpu(monkeypatch):
    return fake_gpu(monkeypatch)


@pytest.fixture
def fast_limits(monkeypatch):
    monkeypatch.setattr(cuda_limits, "measure", lambda *args, **kwargs: FAST)


@pytest.fixture(scope="module")
def result():
    """A complete result of a tiny run: an op and a training step."""
    with pytest.MonkeyPatch.context() as patch, with_threads(1):
        gpu = fake_gpu(patch)
        patch.setattr(cuda_limits, "measure", lambda *args, **kwargs: FAST)
        step = training_case(D=3, H=7, N=5, stock_steps=2, run_steps=2, checked_steps=2)
        training = tables.cuda_suites(gpu)[-1]
        return run.run([(suite_of(gpu), CASE), (training, step)], CUDA_SETTINGS, gpu=gpu)


# --- limits --------------------------------------------------------------------------------------


def test_measured_limits_are_positive_and_the_better_of_two_is_kept():
    measured = cuda_limits.measure(FakeGpu(1 << 20), dram_bytes=1 << 22, width=64, budget_s=0.01)
    assert set(measured.copy) == {"L2", "DRAM"}
    assert set(measured.peak) == {"float32", "tf32", "bfloat16", "float16"}
    assert set(measured.graph_s) == {"1", "10", "40"}
    figures = (*measured.copy.values(), *measured.peak.values(), *measured.graph_s.values())
    assert all(value > 0 for value in (*figures, measured.launch_s, measured.kernel_s))
    best = measured.best_of(FAST)
    assert best.copy["L2"] == max(measured.copy["L2"], FAST.copy["L2"])
    assert best.launch_s == min(measured.launch_s, FAST.launch_s)


def test_bound_is_the_scarcer_resource_at_the_rate_of_the_dtype():
    memory = FAST.bound("float32", Cost(10**6, 10**6, 1 << 21, 0))
    assert (memory.by, memory.seconds) == ("memory", pytest.approx(10**6 / 1e10))
    for dtype, peak in (("float32", 1e11), ("tf32", 2e11), ("bfloat16", 4e11)):
        arithmetic = FAST.bound(dtype, Cost(1, 10**10, 1, 0))
        assert (arithmetic.by, arithmetic.seconds) == ("arithmetic", pytest.approx(1e10 / peak))
        assert FAST.peak_of(dtype, 1) == peak
    assert MACHINE.peak_of("bfloat16", 1) is None


# --- the run -------------------------------------------------------------------------------------


def test_result_is_json_that_names_the_card(result):
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["device"] == "cuda"
    assert result["complete"]
    assert result["machine"]["gpu"]["name"] == "Fake GPU 1"
    assert {"triton", "nvcc", "torch"} <= result["versions"].keys()
    assert result_files.machine_stem(result) == "fake-gpu-1"
    assert run.broken(result) == []


def test_no_case_begins_after_the_time_is_up(gpu, fast_limits):
    result = run.run([(suite_of(gpu), CASE)], CUDA_SETTINGS, gpu=gpu, seconds=0)
    assert result["cases"] == []
    assert list(result["not_run"]) == [CASE.name]
    assert not result["complete"]
    assert "not run" in "\n".join(summary_lines(result))


def test_autotuning_is_left_out_when_half_of_the_time_is_gone(gpu, fast_limits, monkeypatch):
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


def test_a_case_without_enough_memory_is_named_and_the_next_is_run(gpu, fast_limits):
    cases = [(suite_of(FakeGpu(memory_bytes=1000)), CASE), (suite_of(gpu), CASE)]
    result = run.run(cases, CUDA_SETTINGS, gpu=gpu)
    assert len(result["cases"]) == 1
    assert "needs about" in result["not_run"][CASE.name]
    assert gpu.released == 2  # what a case held is free when the next begins


def test_a_gpu_that_takes_no_more_work_ends_the_run(gpu, fast_limits, monkeypatch):
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
    assert run.main(["--device", "cuda"]) == 2
    assert "--device cuda: " in capsys.readouterr().err
    assert yardsticks.main([]) == 2


# --- report --------------------------------------------------------------------------------------


def test_table_fits_120_columns_and_has_every_row(result):
    text = report.full_text(result)
    assert max(map(len, text.splitlines())) <= WIDTH
    for case in result["cases"]:
        for row in case["rows"]:
            assert row["provider"] in text
            assert row["first_s"] > 0


def test_markdown_has_the_measured_cases_and_those_not_yet(result):
    text = gpu_markdown(result, tables.cuda_cases())
    table = [line for line in text.splitlines() if line.startswith("|")]
    listed = sum(len(suite.cases) for suite in tables.cuda_suites(None))
    assert len(table) == 2 + listed + len(result["cases"])
    assert len({line.count("|") for line in table}) == 1
    assert sum(NOT_MEASURED in line for line in table) == listed
    assert "Fake GPU 1" in text


def test_triton_has_its_own_figures_and_its_first_call():
    def row(provider, kind, backend="", **more):
        return {"provider": provider, "kind": kind, "backend": backend, "status": "ok", **more}

    rows = [
        row("eager", "stock", median_s=8e-5),
        row("compile", "stock", median_s=6e-5, first_s=4.5),
        row("eager, CUDA graph", "stock, CUDA graph", median_s=4e-5),
        row("cuda", "mlpkern", "cuda", median_s=1e-5, first_s=0.01),
        row("triton", "mlpkern", "triton", median_s=2e-5, first_s=3.25),
        row("triton, CUDA graph", "mlpkern", "triton", median_s=1e-5, first_s=0.2),
    ]
    case = {
        "op": "linear_tanh", "shape": "4x5->6", "dtype": "float32", "rows": rows,
        "best_stock": "compile", "baseline": "eager", "best_stock_graph": "eager, CUDA graph",
    }  # fmt: skip

    def cells():
        return [column.cell(case) for column in GPU_TABLE[-4:]]

    assert cells() == ["20 µs", "3.00x (4.00x)", "4.00x", "3.25 s"]
    assert "3.00x (4.00x)" in line(TRITON_COLUMNS, case)
    (shown,) = first_call_lines(case)
    assert shown.endswith("compile 4.5 s, triton 3.25 s, triton, CUDA graph 200 ms")
    rows[4:] = [row("triton", "mlpkern", "triton", status="unavailable")]
    assert cells() == ["UNAVAILABLE", "–", "–", "–"]
    rows[:] = rows[:1]
    assert cells() == ["–", "–", "–", "–"]


def test_without_a_result_all_of_the_table_is_not_yet_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    report.main(["--gpu", "--markdown"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + sum(len(suite.cases) for suite in tables.cuda_suites(None))
    assert all(NOT_MEASURED in line for line in lines[2:])


def test_the_newest_kept_result_of_a_gpu_is_taken(result, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    for name, date in (("a-1", "2031-01-01"), ("b-2", "2030-01-01")):
        (tmp_path / f"{name}.json").write_text(json.dumps({**result, "date": date}))
    (tmp_path / "cpu-2032-01-01.json").write_text("not read")
    report.main(["--gpu", "--markdown"])
    assert "2031-01-01" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        report.main([])


def test_files_of_a_gpu_result(result, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(result_files, "HERE", tmp_path)
    result_files.keep(result, tmp_path / "out", "")
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    kept = tmp_path / "results" / f"fake-gpu-1-{result['date'][:10]}.json"
    assert json.loads(kept.read_text()) == result
    assert not (tmp_path / "out" / "ladder.png").exists()


# --- what needs no kernel, and what needs a sanitizer --------------------------------------------


def small_gather(rows):
    sizes = {"V": 5, "D": 3, "N": rows, "T": 2}
    return replace(yardsticks.embedding_gather.CUDA_CASES[0], sizes=sizes)


def test_yardsticks_have_a_row_for_each_and_say_what_failed(gpu, fast_limits, monkeypatch, capsys):
    case = small_gather(4)
    monkeypatch.setattr(yardsticks.embedding_gather, "CUDA_CASES", (case,))
    monkeypatch.setattr(yardsticks, "MODELS", (1, 2))
    monkeypatch.setattr(yardsticks, "BUDGET_S", 0.01)
    monkeypatch.setitem(yardsticks.GRADIENTS, "broken", lambda case, gpu: 1 / 0)
    measured = yardsticks.measure(gpu)
    assert json.loads(json.dumps(measured, allow_nan=False)) == measured
    rows = {row["name"].split(": ")[-1]: row for row in measured["rows"]}
    assert rows["broken"]["failed"].startswith("ZeroDivisionError")
    assert rows["index_add"]["device_s"] > 0
    assert rows["lecture step of 2 models, batched, CUDA graph"]["steps_per_s"] > 0


def test_the_ways_to_a_gradient_of_an_embedding_agree(gpu):
    case = small_gather(40)
    found = [make(case, gpu)() for make in yardsticks.GRADIENTS.values()]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


def test_the_cases_for_the_sanitizer_pass_on_plain_torch_and_catch_a_wrong_op(monkeypatch):
    import mlpkern

    assert sanitizer_cases.main(["reference"]) == 0
    real = mlpkern.linear_tanh
    monkeypatch.setattr(mlpkern, "linear_tanh", lambda *args: real(*args) * 1.01)
    assert sanitizer_cases.main(["reference"]) == 1


def test_the_sanitizer_s_runs_catch_a_wrong_step_and_a_wrong_evaluation(monkeypatch):
    import mlpkern

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


# --- the population at the end -------------------------------------------------------------------


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


def test_a_population_that_breaks_costs_no_case(gpu, fast_limits, monkeypatch, capsys):
    def broken(plan, device):
        raise RuntimeError("no memory\nand more")

    monkeypatch.setattr(run, "train_population", broken)
    result = run.run([], CUDA_SETTINGS, Plan(short=True), gpu=gpu)
    assert result["population"] == {"reason": "RuntimeError: no memory"}
    assert result["complete"]
    assert "population: not run: RuntimeError: no memory" in capsys.readouterr().out


def test_a_run_on_the_processor_has_no_gpu(monkeypatch):
    monkeypatch.setattr(limits, "measure", lambda *args, **kwargs: MACHINE)
    result = run.run([], replace(CUDA_SETTINGS, device="cpu"))
    assert result["device"] == "cpu"
    assert "gpu" not in result["machine"]
    assert "triton" not in result["versions"]
