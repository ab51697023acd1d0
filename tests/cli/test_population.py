"""The command ``population``: a plan, its folder, going on, a model as a run, a line an error."""

from __future__ import annotations

import csv
import importlib
import os
import re
import signal
import statistics

import pytest
from support.command_line import fails
from support.terminal import on_a_terminal

from mlpkern.cli import main

pytest.importorskip("yaml", reason="plans need pyyaml")
KEPT = importlib.import_module("mlpkern.lm.many.kept.population")
GROUP = importlib.import_module("mlpkern.lm.many.group")

PLAN = """
file: {words}
set: {{steps: 60, embedding_dim: 3, batch_size: 8}}
grid: {{hidden: [8, [9, 5]], seed: 0..2}}
models: [{{hidden: 12, lr: "0.2,0.02@30", optimizer: sgd}}]
max_points: 6
"""


@pytest.fixture
def plan(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "grid.yaml"
    path.write_text(PLAN.format(words=words))
    return path


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def without_seconds(path):
    return [{**row, "seconds": None} for row in rows_of(path)]


def test_a_plan_becomes_a_folder_with_a_table_and_a_best_run(plan, tmp_path, capsys):
    assert main(["population", "grid.yaml", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "models  7: hidden 8 9,5 12; lr 0.1,0.01@75% 0.2,0.02@30; seed 0 1 2"
    assert lines[2] == "steps   420 in all, on 1 threads"
    table = next(i for i, line in enumerate(lines) if line.split()[:1] == ["model"])
    assert lines[table].split() == ["model", "dev", "loss", "hidden", "lr", "seed"]
    out = tmp_path / "runs" / "grid"
    rows = rows_of(out / "results.csv")
    assert [row["hidden"] for row in rows] == ["8"] * 3 + ["9,5"] * 3 + ["12"]
    ranked = sorted(rows, key=lambda row: float(row["dev_loss"]))
    for line, row in zip(lines[table + 1 : table + 6], ranked[:5], strict=True):
        number, dev, *settings = line.split()
        assert (number, settings) == (row["model"], [row["hidden"], row["lr"], row["seed"]])
        assert float(dev) == pytest.approx(float(row["dev_loss"]), abs=1e-4)
    assert lines[table + 6] == "mean and standard deviation over the seeds:"
    assert lines[table + 7].split() == ["seeds", "dev", "loss", "±", "hidden", "lr"]
    losses: dict[str, list[float]] = {}
    for row in rows:
        losses.setdefault(row["hidden"], []).append(float(row["dev_loss"]))
    for line in lines[table + 8 : table + 11]:
        seeds, mean, deviation, hidden, _ = line.split()
        own = losses.pop(hidden)
        assert int(seeds) == len(own)
        assert float(mean) == pytest.approx(statistics.fmean(own), abs=1e-4)
        if len(own) > 1:
            assert float(deviation) == pytest.approx(statistics.stdev(own), abs=1e-4)
    assert lines[-3].replace(" curves.parquet,", "") == (
        "saved in runs/grid: results.csv, curves.csv, models, the best run in best"
    )
    assert lines[-2:] == [
        "next: mlpkern sample runs/grid/best",
        f"best dev loss {float(ranked[0]['dev_loss']):.4f}",
    ]
    assert len(rows_of(out / "curves.csv")) == 7 * 6
    assert main(["evaluate", "runs/grid/best", "--split", "dev"]) == 0
    assert f"loss {float(ranked[0]['dev_loss']):.4f}" in capsys.readouterr().out

    # the same command again trains nothing, and takes any model out
    before = rows_of(out / "results.csv")
    assert main(["population", "grid.yaml"]) == 0
    assert rows_of(out / "results.csv") == before
    assert main(["population", "runs/grid", "--model", "4", "--save", "four"]) == 0
    assert main(["evaluate", "four", "--split", "dev"]) == 0
    assert f"loss {float(rows[4]['dev_loss']):.4f}" in capsys.readouterr().out
    error = fails(capsys, "population", "runs/grid", "--model", "7", "--save", "seven")
    assert "runs/grid: no model 7 that has ended" in error


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_folder_goes_on(number, plan, tmp_path, capsys, monkeypatch):
    text = plan.read_text().replace("steps: 60", "steps: 4000")
    plan.write_text(text)
    assert main(["population", "grid.yaml", "--out", "whole"]) == 0
    monkeypatch.setattr(KEPT, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(GROUP, "CHUNK_SECONDS", 0.01)
    write_group = KEPT.write_group

    def interrupting(*arguments):
        write_group(*arguments)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(KEPT, "write_group", interrupting)
    assert main(["population", "grid.yaml", "--out", "some"]) == 128 + number
    last = capsys.readouterr().err.splitlines()[-1]
    expected = r"SIG\w+ at \d of 7 models; saved; continue with: mlpkern population some"
    assert re.fullmatch(expected, last)
    monkeypatch.setattr(KEPT, "write_group", write_group)
    assert main(["population", "some"]) == 0
    for name in ("results.csv", "curves.csv"):
        assert without_seconds(tmp_path / "some" / name) == without_seconds(
            tmp_path / "whole" / name
        )


@pytest.mark.usefixtures("plan")
def test_a_terminal_shows_a_bar_below_the_header():
    shown = on_a_terminal("population", "grid.yaml", "--threads", "1", columns=100)
    header = next(i for i, line in enumerate(shown) if line.startswith("steps "))
    assert re.fullmatch(r"100%\|█+\| 420/420 \[\S+, .*/s\]", shown[header + 1])
    assert shown[header + 2].startswith("7 models in ")


def test_of_models_that_all_diverge_it_exits_with_1(plan, capsys):
    plan.write_text(plan.read_text().replace("set: {", "set: {lr: 1.0e+9, ").replace(
        "models:", "# "))  # fmt: skip
    assert main(["population", "grid.yaml", "--out", "wild"]) == 1
    printed, error = capsys.readouterr()
    assert "6 models have stopped or diverged" in printed
    assert "mlpkern sample" not in printed
    assert error.endswith("mlpkern population: error: every model has stopped or diverged\n")


@pytest.mark.parametrize(
    ("plan_text", "message"),
    [
        ("grid: [1", "no YAML"),
        ("7", "expected keys such as set"),
        ("grid: {hidden: [8]}\nsets: {}", "unknown keys sets; the keys are file, data"),
        ("set: {steps: 3}", "nothing to train; give grid, models or both"),
        ("preset: huge\ngrid: {seed: [1]}", "preset must be one of quick"),
        ("grid: {hiden: [8]}", "grid: no setting hiden; did you mean hidden?"),
        ("grid: {hidden: 8}", "grid: hidden must be a list of values, or whole numbers as in 0..9"),
        ("grid: {lr: 0..9}", "grid: lr must be a list of values"),
        ("grid: {seed: 9..0}", "grid: seed must be a list of values"),
        ("grid: {seed: 0..999999}", "grid: seed: 1,000,000 values; at most 100,000"),
        ("grid: {seed: 0..999, embedding_dim: 1..999}", "grid: 999,000 models; at most 100,000"),
        ("grid: {hidden: [0]}", "grid: hidden must be one width or more"),
        ("grid: {lr: [fast]}", "grid: lr: expected learning rates as in"),
        ("grid: {optimizer: [adam]}", "grid: optimizer must be one of sgd, adamw"),
        ("models: {hidden: 8}", "models must be a list of settings"),
        ("models: [{hidden: 8}, {seed: x}]", "models: 1: seed: expected a whole number"),
        ("grid: {seed: [1, 2, 1]}", "models 0 and 2 have the same settings"),
        ("grid: {split_seed: [1, 2]}", "split_seed must be the same for all models"),
        ("grid: {seed: [1]}\nkeep_best: 3", "keep_best must be true or false"),
        ("grid: {seed: [1]}\nmax_points: 0", "max_points must be at least 1"),
        ("grid: {seed: [1]}\nlevel: 3", "level must be of type str"),
        ("grid: {seed: [1]}\ndata: web", "data must be embedded or makemore"),
        ("grid: {seed: [1]}\ndata: makemore\nfile: a", "file and data: give one of them"),
    ],
)
def test_a_wrong_plan_is_one_line(plan, capsys, plan_text, message):
    plan.write_text(plan_text)
    error = fails(capsys, "population", "grid.yaml")
    assert "error: grid.yaml: " in error
    assert message in error
    assert not os.path.exists("runs")


def test_wrong_arguments_are_one_line(plan, capsys):
    assert main(["population", "grid.yaml"]) == 0
    capsys.readouterr()
    for arguments, message in (
        (["none.yaml"], "none.yaml: cannot be read"),
        (["grid.yaml", "--model", "3"], "--model N and --save RUN go together"),
        (["grid.yaml", "--model", "3", "--save", "x"], "grid.yaml: "),
        ([".", "--out", "x"], "--out goes with a plan"),
        (["."], "not the folder of a population"),
        (["runs/grid", "--model", "3", "--save", "runs"], "is not empty"),
    ):
        assert message in fails(capsys, "population", *arguments)
    plan.write_text(plan.read_text().replace("0..2", "0..3"))
    error = fails(capsys, "population", "grid.yaml")
    assert "runs/grid: holds another population: 7 models, not 9; replace it with --force" in error
    assert main(["population", "grid.yaml", "--force"]) == 0
