"""Runs side by side: the table, what differs, runs that have not ended, the command and errors."""

from __future__ import annotations

import csv
import json
import os
import shutil

import pytest
from support.command_line import fails
from support.lm.training import finished
from support.lm.words import make_words
from support.pictures import png_size

from mlpkern import lm
from mlpkern.cli import main

SIZES = ["--embedding-dim", "3", "--log-every", "10", "--eval-every", "20"]


@pytest.fixture
def runs(words, tmp_path, capsys):
    """Two folders of short runs that differ in two settings and the engine."""
    folders = [str(tmp_path / name) for name in ("a", "b")]
    for folder, extra in zip(folders, (["--hidden", "8"], ["--hidden", "9,4"]), strict=True):
        seed = ["--seed", str(len(extra[1]))]
        assert main(["train", words, *SIZES, *extra, *seed, "--steps", "40", "--out", folder,
                     "--engine", "stock" if len(extra[1]) == 1 else "ops"]) == 0  # fmt: skip
    capsys.readouterr()
    return folders


def test_the_table_has_losses_and_what_differs(runs):
    found = lm.compare(runs)
    assert found.differences == {"hidden": ["8", "9,4"], "seed": ["1", "3"]}
    assert found.same_words
    lines = [line.split() for line in found.to_text().splitlines()]
    assert lines[0] == ["run", "train", "dev", "steps", "seconds", "engine", "hidden", "seed"]
    for line, folder, engine in zip(lines[1:], runs, ("stock", "ops"), strict=True):
        with open(os.path.join(folder, "summary.json")) as file:
            summary = json.load(file)
        name, train, dev, steps, seconds, *rest = line
        assert (name, steps) == (os.path.basename(folder), "40")
        assert float(train) == pytest.approx(summary["train"]["loss"], abs=5.1e-5)
        assert float(dev) == pytest.approx(summary["dev"]["loss"], abs=5.1e-5)
        assert float(seconds) == pytest.approx(summary["seconds"], abs=0.051)
        assert rest[0] == engine


def test_a_run_that_has_not_ended_shows_the_dev_loss_of_its_log(tmp_path):
    finished(tmp_path / "whole")
    finished(tmp_path / "part")  # without a summary, as after Ctrl-C
    text = lm.compare([tmp_path / "whole", tmp_path / "part"]).to_text()
    dev = lm.compare([tmp_path / "whole", tmp_path / "part"]).runs[1].rows[-1].dev_loss
    assert f"-      {dev:.4f}*" in text
    assert "* the last dev loss of the log of a run that has not ended" in text
    # a summary of an earlier end counts as none
    (tmp_path / "part" / "summary.json").write_text(json.dumps({"steps": 3}))
    assert not lm.compare([tmp_path / "whole", tmp_path / "part"]).runs[1].ended


def test_other_words_are_pointed_out_and_equal_names_told_apart(runs, tmp_path, capsys):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(make_words(seed=1)))
    folder = tmp_path / "deep" / "a"
    main(["train", str(other), *SIZES, "--hidden", "8", "--steps", "10", "--out", str(folder)])
    found = lm.compare([runs[0], folder])
    assert not found.same_words
    assert "the losses do not compare" in found.to_text()
    assert [run.name for run in found.runs] == [runs[0], str(folder)]


def test_compare_prints_and_draws(runs, tmp_path, capsys):
    out = tmp_path / "curves.png"
    assert main(["compare", *runs, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{lm.compare(runs).to_text()}\nsaved {out}\n"
    assert png_size(out.read_bytes()) == (1650, 780)
    before = out.read_bytes()
    assert "choose another --out" in fails(capsys, "compare", *runs, "--out", out)
    assert out.read_bytes() == before


def test_what_is_no_run_is_named_and_left_out(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, file in (("sweep", "study.journal"), ("grid", "population.json"), ("notes", "a.txt")):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / file).touch()
    shutil.copytree("a", "sweep/best")
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy("a/config.json", begun)
    assert main(["compare", "a", "b", "sweep", "grid", "notes", "begun", "words.txt"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{lm.compare(['a', 'b']).to_text()}\n"
    assert err.splitlines() == [
        "mlpkern compare: sweep: a sweep, left out; its best run is sweep/best",
        "mlpkern compare: grid: a population, left out",
        "mlpkern compare: notes: not a run, left out",
        "mlpkern compare: begun: the run stopped before its first checkpoint, left out",
        "mlpkern compare: words.txt: not a run, left out",
    ]
    assert main(["compare", ".", "sweep/best"]) == 0  # a folder of runs among the arguments
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["run", "a", "b", "best"]
    assert err.count("left out") == 4


def test_the_csv_is_the_table(runs, tmp_path, capsys):
    file = tmp_path / "runs.csv"
    assert main(["compare", *runs, "--csv", str(file)]) == 0
    assert capsys.readouterr().out.endswith(f"\nsaved {file}\n")
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    for row, run in zip(rows, lm.compare(runs).runs, strict=True):
        assert (row["run"], row["ended"]) == (run.name, "1")
        losses = [float(row[name]) for name in ("train", "dev", "best_dev")]
        assert losses == [run.train, run.dev, run.best.dev_loss]
    assert [(row["hidden"], row["seed"]) for row in rows] == [("8", "1"), ("9,4", "3")]
    assert "choose another --csv" in fails(capsys, "compare", *runs, "--csv", file)


def test_the_title_names_what_is_compared(runs):
    assert lm.compare(runs).title == "2 runs on words.txt, differing in hidden, seed"
    assert lm.compare([runs[0]] * 2).title == "2 runs on words.txt, of the same settings"


def test_errors(runs, tmp_path, capsys):
    assert "two runs or more, got 1" in fails(capsys, "compare", runs[0])
    assert "no such run folder" in fails(capsys, "compare", runs[0], tmp_path / "absent")
    broken = str(tmp_path / "broken")
    shutil.copytree(runs[1], broken)
    with open(os.path.join(broken, "summary.json"), "w") as file:
        file.write('{"steps": 40, "train"')
    error = fails(capsys, "compare", runs[0], broken)
    assert "summary.json: damaged or no summary of a run" in error
    with open(os.path.join(broken, "log.csv"), "w") as file:
        file.write("nonsense\n")
    assert "log.csv, line 1" in fails(capsys, "compare", runs[0], broken)
