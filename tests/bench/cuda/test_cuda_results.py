"""Results of the benchmark of a GPU: limits, the run as a whole, its report, the README's table."""

from __future__ import annotations

import json

import pytest
from support.bench.fake_gpu import CASE, CUDA_SETTINGS, FAST, FakeGpu, fake_gpu, suite_of
from support.bench.tiny import MACHINE

from bench import report, result_files, run
from bench import suites as tables
from bench.core.case import Cost
from bench.core.providers import with_threads
from bench.cuda import limits as cuda_limits
from bench.shown.cases import first_call_lines
from bench.shown.summary import GPU_TABLE, NOT_MEASURED, TRITON_COLUMNS, gpu_markdown
from bench.shown.text import WIDTH, line
from bench.training.case import training_case

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


def test_result_is_json_that_names_the_gpu(result):
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["device"] == "cuda"
    assert result["complete"]
    assert result["machine"]["gpu"]["name"] == "Fake GPU 1"
    assert {"triton", "nvcc", "torch"} <= result["versions"].keys()
    assert result_files.machine_stem(result) == "fake-gpu-1"
    assert run.broken(result) == []


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
        "best_rival": "compile", "baseline": "eager", "best_stock_graph": "eager, CUDA graph",
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
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    result_files.keep(result, tmp_path / "out", "")
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    kept = tmp_path / "results" / f"fake-gpu-1-{result['date'][:10]}.json"
    assert json.loads(kept.read_text()) == result
    assert not (tmp_path / "out" / "ladder.png").exists()
