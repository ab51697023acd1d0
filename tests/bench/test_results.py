"""The benchmark's results: ratios, table, markdown, chart, files, limits, cases, command line."""

from __future__ import annotations

import json

import pytest
import torch
from support.bench.tiny import CASE, MACHINE, SETTINGS, nan, row_of, suite_with

from bench import report, result_files, run
from bench.core import limits, machine, providers
from bench.core.case import Case, Cost
from bench.core.ratios import ratios
from bench.ops import cross_entropy, embedding_gather, embedding_linear_tanh, linear_tanh
from bench.runner import run_case
from bench.shown import charts, header, text
from bench.shown.header import header_lines
from bench.shown.summary import markdown
from bench.suites import OP_TABLES, SUITES
from bench.training import case as training_case

# --- results -------------------------------------------------------------------------------------


def test_rows_are_ordered_statistics_with_fractions():
    result = run_case(suite_with(), CASE, SETTINGS, MACHINE)
    for row in result["rows"]:
        if row["status"] == "unavailable":
            assert row["reason"]
            continue
        assert row["minimum_s"] <= row["q1_s"] <= row["median_s"] <= row["q3_s"]
        assert row["fraction_of_limit"] == pytest.approx(
            result["bound"]["seconds"] / row["median_s"]
        )
    ours, eager = row_of(result, "reference"), row_of(result, "eager")
    assert result["ratio"] == pytest.approx(eager["median_s"] / ours["median_s"])


def test_ratios_are_of_the_best_rival_and_ours_each_at_its_best_number_of_threads():
    def row(provider, kind, median):
        return {"provider": provider, "kind": kind, "median_s": median}

    rows = [
        row("eager", providers.STOCK, 6.0),
        row("compile", providers.STOCK, 4.0),
        row("reference", providers.MLPKERN, 0.1),
        row("cpu", providers.MLPKERN, 2.0),
        row("cpu, 1 thread", providers.MLPKERN, 1.0),
        row("cpu, output pool off", providers.MLPKERN, 0.5),
        row("JAX, 1 thread", providers.JAX, 3.5),
        row("eager, malloc keeps pages", providers.STOCK_KEEPS_PAGES, 3.0),
    ]
    assert ratios(rows) == {
        "ours": "cpu, 1 thread",
        "best_rival": "JAX, 1 thread",
        "ratio": 3.5,
        "best_stock_keeps_pages": "eager, malloc keeps pages",
        "ratio_keeps_pages": 3.0,
        "baseline": None,
        "ratio_baseline": None,
    }
    assert ratios(rows, "cpu", "eager")["ratio_baseline"] == 6.0
    assert ratios(rows[:-3], "run")["ratio"] is None


@pytest.fixture(scope="module")
def result():
    """A complete result of a tiny run; three cases, one of them not timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "measure", lambda *args, **kwargs: MACHINE)
        suites = [suite_with(), suite_with(ours="eager"), suite_with(nan)]
        return run.run([(suite, CASE) for suite in suites], SETTINGS)


def test_result_is_json_that_names_machine_versions_date_and_commit(result):
    assert json.loads(json.dumps(result)) == result
    assert result["complete"]
    assert result["machine"]["cpu"]
    assert result["machine"]["cores"] >= 1
    assert result["versions"]["torch"] == torch.__version__
    assert result["date"].endswith("+00:00")
    assert {"commit", "command", "settings", "limits", "training"} <= result.keys()


def test_table_fits_120_columns_and_has_every_row(result):
    table = report.full_text(result)
    assert max(map(len, table.splitlines())) <= text.WIDTH
    for case in result["cases"]:
        for row in case["rows"]:
            assert row["provider"] in table
    assert "WRONG" in table


def test_markdown_has_every_case_also_those_without_a_ratio(result):
    table = [line for line in markdown(result).splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(result["cases"])
    assert len({line.count("|") for line in table}) == 1
    assert "WRONG" in table[-1]


def test_report_prints_a_file_and_refuses_what_is_no_result(result, tmp_path, capsys):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    report.main([str(path), "--markdown"])
    assert capsys.readouterr().out == markdown(result)
    path.write_text("{}")
    with pytest.raises(SystemExit, match="not a result"):
        report.main([str(path)])


def test_files_are_written_into_a_new_and_into_an_existing_folder(result, tmp_path, capsys):
    folder = tmp_path / "a" / "out"
    for _ in range(2):
        result_files.keep(result, folder, None)
        assert json.loads((folder / "result.json").read_text()) == result
        assert (folder / "table.txt").read_text() == report.full_text(result)
    assert [p.name for p in folder.parent.iterdir()] == ["out"]  # nothing temporary is left


def test_chart_is_a_picture(result):
    pytest.importorskip("matplotlib", reason="matplotlib draws the chart")
    assert charts.chart_png(result).startswith(b"\x89PNG")


def test_chart_without_a_ratio_says_so(result):
    with pytest.raises(providers.Unavailable, match=r"no case|matplotlib"):
        charts.chart_png({**result, "cases": []})


@pytest.mark.parametrize(
    ("value", "shown"), [(2.5, "2.5 s"), (0.0123456, "12.35 ms"), (3e-6, "3 µs"), (5e-8, "50 ns")]
)
def test_seconds_have_four_digits_and_a_unit(value, shown):
    assert text.seconds(value) == shown


# --- machine, load, order ------------------------------------------------------------------------


def test_a_record_names_the_instruction_set_and_the_one_it_was_narrowed_from(result):
    described = {**result["machine"], "mlpkern_isa": "avx2", "isas": ["avx512", "avx2", "baseline"]}
    narrowed = {**result, "machine": described}
    assert result_files.machine_stem(narrowed) == "cpu-avx512-as-avx2"
    assert "avx2 (by MLPKERN_ISA; the CPU has avx512)" in " ".join(
        " ".join(header_lines(narrowed)).split()
    )
    assert "the CPU has avx512" in markdown(narrowed)
    described["isas"] = ["avx2", "baseline"]
    assert result_files.machine_stem(narrowed) == "cpu-avx2"
    assert "MLPKERN_ISA" not in markdown(narrowed)


def test_a_loaded_machine_is_said_above_and_below(result):
    quiet = {"busy": 0.02, "most": 0.1, "stolen": 0.0, "average": 0.3}
    for change, said in (({}, False), ({"busy": 0.4}, True), ({"stolen": 0.2}, True)):
        lines = report.full_text({**result, "load": quiet | change}).splitlines()
        assert sum("LOADED MACHINE" in line for line in lines) == 2 * said
        assert sum("of the CPU time" in line for line in lines) == 2
    assert header.load_text({**result, "load": {**quiet, "busy": None}}) == ""


# --- limits, floors, cases -----------------------------------------------------------------------


def test_measured_limits_are_positive_and_the_better_of_two_is_kept():
    measured = limits.measure(1, quick=True, dram_bytes=1 << 24, budget_s=0.01)
    assert set(measured.copy) == {"L2", "past L2", "DRAM"}
    assert all(rate > 1e7 for rate in (*measured.copy.values(), *measured.peak.values()))
    assert 1e-8 < measured.first_touch_s < 1e-3
    best = measured.best_of(MACHINE)
    for mine, other, merged in zip(
        measured.copy.values(), MACHINE.copy.values(), best.copy.values(), strict=True
    ):
        assert merged == max(mine, other)
    assert measured.peak_of("float32", 1) == measured.fma["1 thread"] > 1e7


def test_bound_is_the_scarcer_resource_at_the_level_that_holds_the_data():
    memory = MACHINE.bound("float32", Cost(10**6, 10**6, 1 << 21, 0))
    assert (memory.by, memory.seconds) == ("memory", pytest.approx(10**6 / 5e10))
    arithmetic = MACHINE.bound("bfloat16", Cost(10**6, 10**10, 1 << 21, 0))
    assert (arithmetic.by, arithmetic.seconds) == ("arithmetic", pytest.approx(0.1))
    assert [MACHINE.level(size) for size in (1, 1 << 22, 1 << 40)] == ["L2", "past L2", "DRAM"]


def find_case(op, name):
    return next(case for case in OP_TABLES[op].cases if case.name == name)


def test_floors_of_an_example_of_each_op():
    """Counted by hand: float32 is 4 bytes, an id 8."""
    case = find_case("cross_entropy", "cross_entropy 4096x1000 float32")
    assert cross_entropy.cost(case).bytes == 3 * 4096 * 1000 * 4 + 2 * 4096 * 8
    case = find_case("linear_tanh", "linear_tanh 4096x512->512 float32")
    assert linear_tanh.cost(case).flops == 3 * 2 * 4096 * 512 * 512
    # folded: three products with the 27 rows of the table, two passes of sums over the batch
    case = find_case("embedding_linear_tanh", "embedding_linear_tanh 4096x3x10->200 V=27 float32")
    folded = 3 * 2 * 27 * 30 * 200 + 2 * 4096 * 3 * 200
    assert embedding_linear_tanh.cost(case).flops == folded
    case = embedding_gather.CASES[2]
    assert embedding_gather.cost(case).largest_output == 1_000_000 * 64 * 4
    # 1.094 million multiply-adds: 32 rows, 30 x 200 and 200 x 27 weights, three products each
    assert training_case.cost(training_case.LECTURE).flops == 2 * 3 * 32 * (30 * 200 + 200 * 27)


def test_every_suite_has_quick_cases_and_names_are_unique():
    names = [case.name for suite in SUITES for case in suite.cases]
    assert len(set(names)) == len(names)
    assert all(any(case.quick for case in suite.cases) for suite in SUITES)


def test_inputs_are_the_same_in_every_process_and_differ_between_cases():
    """The worker with the other malloc draws its inputs itself."""
    first, second = (cross_entropy.problem(CASE).args for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = Case("cross_entropy", "8x5", "float64", {"N": 8, "V": 5})
    assert not torch.equal(cross_entropy.problem(other).args[0].float(), first[0])


# --- command line --------------------------------------------------------------------------------


def test_selection_by_op_case_and_dtype():
    def names(*arguments):
        return [case.name for _, case in run.chosen(run.parse(list(arguments)))]

    assert len(names()) == sum(len(suite.cases) for suite in SUITES)
    assert set(names("--quick")) < set(names())
    assert names("--op", "linear_tanh", "--case", "32x30") == ["linear_tanh 32x30->200 float32"]
    assert all(name.endswith("bfloat16") for name in names("--dtype", "bfloat16"))
    assert "cross_entropy 2048x32000 bfloat16" in names("--quick", "--case", "32000")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threads", "0"],
        ["--device", "cuda"],
        ["--op", "sin"],
        ["--case", "nothing"],
        ["--quick", "--record"],
        ["--file", "no such file"],
    ],
)
def test_bad_command_lines_end_with_status_2(arguments, capsys):
    try:
        status = run.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert "bench/run.py" in capsys.readouterr().err


def test_a_wrong_kernel_makes_the_run_fail(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(limits, "measure", lambda *args, **kwargs: MACHINE)
    monkeypatch.setattr(run, "chosen", lambda options: [(suite_with(nan), CASE)])
    monkeypatch.setattr(run, "QUICK", {"budget_s": 0.0, "min_sample_s": 1e-5})
    arguments = ["--quick", "--no-compile", "--threads", "1", "--out", str(tmp_path / "out")]
    assert run.main(arguments) == 1
    assert "REFUSED" in capsys.readouterr().err


def test_a_result_does_not_tell_where_files_lie(monkeypatch):
    arguments = [
        "run.py",
        "--file",
        "/home/somebody/names.txt",
        "--out",
        "out/a",
        "--reach",
        "2.17",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    expected = "python bench/run.py --file names.txt --out out/a --reach 2.17"
    assert machine.command() == expected
