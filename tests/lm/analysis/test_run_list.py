"""A folder of runs as a list: what each entry says, and damaged and foreign folders among them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from support.command_line import fails
from support.lm.training import CONFIG, DATASET, finished

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.analysis.run_list import beyond_preset, runs_text
from mlpkern.lm.saved.folder_lock import FolderLock

SIZES = ["--embedding-dim", "3", "--hidden", "8", "--log-every", "10", "--eval-every", "20"]


@pytest.fixture
def folder(words, tmp_path, monkeypatch, capsys):
    """The folder runs/ with the finished run a and the run b, which was interrupted."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", words, *SIZES, "--steps", "40", "--out", "runs/a"]) == 0
    finished(tmp_path / "runs" / "b")  # without a summary, as after Ctrl-C
    for k, name in enumerate("ab"):
        os.utime(tmp_path / "runs" / name / "model.safetensors", (1e9 + k, 1e9 + k))
    capsys.readouterr()
    return tmp_path / "runs"


def entry(folder, name):
    return next(one for one in lm.list_runs(folder) if one.path.name == name)


def test_a_run_with_all_that_is_known_of_it(folder):
    a, b = lm.list_runs(folder)
    summary = json.loads((folder / "a" / "summary.json").read_text())
    assert (a.kind, a.state, a.words, a.date, a.note) == ("run", "finished", "words.txt", 1e9, "")
    assert (a.step, a.steps, a.dev) == (40, 40, summary["dev"]["loss"])
    assert a.best_dev == lm.load_checkpoint(folder / "a", checkpoint="best").dev_loss
    assert (a.preset, a.settings) == ("quick", {"embedding_dim": "3", "hidden": "8"})
    assert (b.state, b.step, b.steps) == ("interrupted", 600, 600)
    assert b.dev == lm.compare([folder / "a", folder / "b"]).runs[1].dev
    assert b.note == f"{b.path}: interrupted; go on with: mlpkern train --resume {b.path}"
    assert {"embedding_dim": "4", "hidden": "24", "batch_size": "8"}.items() <= b.settings.items()


def test_the_order(folder):
    def names(**how):
        return [one.path.name for one in lm.list_runs(folder, **how)]

    lowest = sorted("ab", key=lambda name: entry(folder, name).lowest)
    assert (names(), names(sort="dev"), names(sort="name")) == (["a", "b"], lowest, ["a", "b"])
    os.utime(folder / "a" / "model.safetensors", (2e9, 2e9))
    assert names() == ["b", "a"]
    with pytest.raises(lm.ConfigError, match="sort must be one of date, dev, name, got 'size'"):
        names(sort="size")


def test_a_run_that_a_living_process_writes_is_running(folder):
    with FolderLock(folder / "b"):
        b = entry(folder, "b")
        assert b.state == "running"
        assert f"process {os.getpid()} (this one) on " in b.note
    assert entry(folder, "b").state == "interrupted"
    code = "from mlpkern.lm.saved.folder_lock import FolderLock as L; from pathlib import Path\n"
    code += f"L(Path({str(folder / 'b')!r})).__enter__(); import os; os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (folder / "b" / ".lock").exists()  # of a process that was killed
    assert entry(folder, "b").state == "interrupted"


def test_a_sweep(folder):
    for kind in ("sweep", "begun"):
        (folder / kind).mkdir()
        (folder / kind / "study.journal").touch()
    text = "trial,state,steps,dev_loss,lr,hidden\n0,pruned,10,2.1,0.1,8\n1,complete,40,2.5,0.2,8\n"
    (folder / "sweep" / "trials.csv").write_text(text)
    shutil.copytree(folder / "a", folder / "sweep" / "best")
    sweep = entry(folder, "sweep")
    assert (sweep.kind, sweep.step, sweep.best_dev, sweep.words) == ("sweep", 2, 2.5, "words.txt")
    assert (sweep.settings, sweep.state) == ({"over": "lr hidden"}, "")
    assert (entry(folder, "begun").kind, entry(folder, "begun").step) == ("sweep", None)


def test_a_population(folder):
    configs = [replace(CONFIG, steps=10, seed=seed) for seed in range(3)]
    lm.population(configs, DATASET, folder=folder / "many")
    many = entry(folder, "many")
    assert (many.kind, many.step, many.steps, many.state) == ("population", 3, 3, "finished")
    with (folder / "many" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert many.best_dev == min(float(row["best_dev_loss"]) for row in rows)
    assert many.settings["over"] == "seed"
    assert many.settings["hidden"] == "24"
    assert "seed" not in many.settings
    (folder / "many" / "results.csv").unlink()
    assert (entry(folder, "many").state, entry(folder, "many").step) == ("interrupted", 0)
    again = f"go on with: mlpkern population {folder / 'many'}"
    assert entry(folder, "many").note == f"{folder / 'many'}: interrupted; {again}"
    assert runs_text([many]).splitlines()[1].split()[5:7] == ["3", "models"]


def test_shares_and_steps_are_the_same_schedule():
    steps = lm.TrainConfig(steps=400, lr=((0, 0.1), (300, 0.01)))
    assert beyond_preset(steps) == ("quick", {})
    assert beyond_preset(replace(steps, steps=500))[1].keys() == {"lr"}


def test_damaged_and_foreign_folders_are_a_line_each(folder, capsys):
    def broken(name, file, content):
        shutil.copytree(folder / "a", folder / name)
        (folder / name / file).write_bytes(content)

    broken("torn", "model.safetensors", b"\x10")
    broken("summary", "summary.json", b'{"steps": 40, "train"')
    broken("best", "best.safetensors", b"")
    (folder / "config").mkdir()
    (folder / "config" / "config.json").write_text("[]")
    (folder / "sweep").mkdir()
    (folder / "sweep" / "study.journal").touch()
    (folder / "sweep" / "trials.csv").write_bytes(b"trial,dev_loss\n0,much\n\xff")
    shutil.copytree(folder / "a", folder / "notes" / "a")
    (folder / "a.txt").touch()
    for name in ("torn", "summary", "best", "config", "sweep"):
        found = entry(folder, name)
        assert found.state == "damaged", name
        assert found.note.startswith(str(folder / name)), name
        assert "\n" not in found.note
    assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["name", "a", "b"]
    assert len(lines) == 3 + 1 + 6  # b is interrupted
    assert (
        "runs/notes: no run, sweep or population, but it holds runs: mlpkern runs runs/notes" in out
    )
    assert err == ""


def test_the_command_prints_a_table_and_writes_a_csv(folder, capsys):
    assert main(["runs", "--csv", "list.csv"]) == 0
    head, a, b, note, saved = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "kind", "date", "words", "steps", "dev", "best", "dev", "state",
                            "settings"]  # fmt: skip
    assert a.endswith("finished     quick, embedding_dim 3, hidden 8")
    assert (a.split()[4:6], b.split()[:2]) == (["words.txt", "40"], ["b", "run"])
    assert note == "runs/b: interrupted; go on with: mlpkern train --resume runs/b"
    assert saved == "saved list.csv"
    with open("list.csv") as file:
        rows = list(csv.DictReader(file))
    for row, run in zip(rows, lm.list_runs("runs"), strict=True):
        assert (row["path"], row["state"], row["note"]) == (str(run.path), run.state, run.note)
        assert (float(row["dev"]), float(row["best_dev"])) == (run.dev, run.best_dev)
    assert "choose another --csv" in fails(capsys, "runs", "--csv", "list.csv")


def test_other_folders(folder, tmp_path, capsys):
    assert [one.path for one in lm.list_runs(folder / "a")] == [folder / "a"]
    (tmp_path / "empty").mkdir()
    assert main(["runs", "empty"]) == 0
    assert capsys.readouterr().out == "empty: no runs in it; mlpkern train makes one\n"
    assert "absent: no such folder; mlpkern train makes runs in runs/" in fails(
        capsys, "runs", "absent"
    )
