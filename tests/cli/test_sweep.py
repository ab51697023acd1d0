"""The command ``sweep``: two processes on one study, the files of the end, one line an error."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.terminal import on_a_terminal

from mlpkern.cli import main
from mlpkern.lm.many.population import Population
from mlpkern.lm.saved.checkpoint import load_checkpoint

optuna = pytest.importorskip("optuna")

QUICK = [
    "--trials", "6", "--batch", "6", "--steps", "30", "--block-size", "2", "--embedding-dim", "3",
    "--search", "hidden=4,8", "--batch-size", "8", "--threads", "1",
]  # fmt: skip


def table_of(out):
    with (out / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_two_processes_share_a_study(words, tmp_path):
    out = tmp_path / "sweep"
    arguments = ["sweep", words, *QUICK, "--batch", "2", "--out", str(out), "--trials", "12"]
    command = [sys.executable, "-m", "mlpkern", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        while not (out / "study.journal").exists() and other.poll() is None:
            time.sleep(0.05)
        assert main(arguments) == 0
        other.communicate()
    assert other.returncode == 0
    rows = table_of(out)
    assert 12 <= len(rows) <= 14
    assert [int(row["trial"]) for row in rows] == list(range(len(rows)))
    with (out / "curves.csv").open() as file:
        curves = [int(row["trial"]) for row in csv.DictReader(file) if row["step"] == "1"]
    assert sorted(curves) == list(range(len(rows)))  # of both processes, each once


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_trials_under_way_as_failed(number, words, tmp_path, capsys, monkeypatch):
    out = tmp_path / "sweep"
    asked = threading.Event()

    def send():
        if asked.wait(60):
            os.kill(os.getpid(), number)

    def advance(self, share, begin=Population.advance):
        asked.set()
        begin(self, share)

    monkeypatch.setattr(Population, "advance", advance)
    sender = threading.Thread(target=send)
    sender.start()
    code = main(["sweep", words, *QUICK, "--steps", "10000000", "--out", str(out)])
    sender.join()
    assert code == 128 + number
    said = "stopped; trials.csv and curves.csv hold the trials that have ended; the same command "
    assert f"{said}with --out {out} goes on" in capsys.readouterr().out
    assert table_of(out) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    backend = optuna.storages.journal.JournalFileBackend(str(out / "study.journal"))
    (study,) = optuna.storages.JournalStorage(backend).get_all_studies()
    storage = optuna.storages.JournalStorage(backend)
    states = [trial.state.name for trial in storage.get_all_trials(study._study_id)]
    assert states == ["FAIL"] * 6


def test_after_a_signal_the_tables_hold_what_has_ended(words, tmp_path):
    out = tmp_path / "sweep"
    long = ["--trials", "200", "--minutes", "0", "--steps", "300", "--batch", "4", "--rungs", "0.5"]
    command = [sys.executable, "-m", "mlpkern", "sweep", words, *QUICK, *long, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("trials 4-7  step 300"):  # in the third batch, or just before
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
    assert process.returncode == 128 + signal.SIGTERM
    assert f"the same command with --out {out} goes on\n" in rest
    rows = table_of(out)
    assert 4 <= len(rows) <= 12
    with (out / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert {row["trial"] for row in curves} == {row["trial"] for row in rows}
    for row in rows:
        last = [curve for curve in curves if curve["trial"] == row["trial"]][-1]
        assert (last["step"], last["dev_loss"]) == (row["steps"], row["dev_loss"])
    assert load_checkpoint(out / "best").step == 300


def test_the_bar_on_a_terminal_stands_below_the_lines(words, tmp_path):
    pytest.importorskip("tqdm")
    lines = on_a_terminal("sweep", words, *QUICK, "--out", tmp_path / "sweep", columns=100)
    rungs = [
        i for i, line in enumerate(lines) if re.match(r"trials 0-5  step +\d+ .* in training", line)
    ]
    assert len(rungs) == 2
    bar = next(line for line in lines if "steps [" in line)
    # 6 models to step 12 with a cool-down of 1, two of them to step 30
    assert re.fullmatch(r"trials 0-5 100%\|█+\| 114/114 steps \[\d\d:\d\d<00:00\]", bar)
    assert lines.index(bar) == rungs[-1] + 1
    other = ["--out", tmp_path / "sweep", "--search", "hidden=4"]
    refused = on_a_terminal("sweep", words, *QUICK, *other, columns=200, code=2)
    assert not any("steps [" in line for line in refused)  # nothing is shown before a batch begins


def test_a_table_of_settings_over_seeds(words, tmp_path, capsys):
    out = tmp_path / "sweep"
    seeds = ["--search", "seed=0..2", "--rungs", "", "--search", "lr=0.01,0.02"]
    assert main(["sweep", words, *QUICK, *seeds, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("trials  mean dev"))
    assert lines[head].split()[-4:] == ["hidden", "lr", "weight_decay", "hidden_dropout"]
    losses = {int(row["trial"]): float(row["dev_loss"]) for row in table_of(out)}
    means = []
    for line in lines[head + 1 : head + 3]:
        first, last = map(int, line.split()[0].split("-"))
        own = [losses[k] for k in range(first, last + 1)]
        found = [float(text) for text in line.split()[1:4]]
        assert found == pytest.approx([sum(own) / 3, min(own), max(own)], abs=1e-4)
        means.append(found[0])
    assert means == sorted(means)


def test_the_command_ends_with_a_table_pictures_and_a_run_to_sample(words, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "sweep"
    assert main(["sweep", words, *QUICK, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    best = float(re.fullmatch(r"best dev loss (\d\.\d{4})", lines[-1])[1])
    assert f"next: mlpkern sample {out}/best" == lines[-2]
    table = next(i for i, line in enumerate(lines) if line.startswith("trial  dev loss"))
    assert float(lines[table + 1].split()[1]) == best
    rows = table_of(out)
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    ended = [float(row["dev_loss"]) for row in rows if row["steps"] == "30"]
    assert min(ended) == pytest.approx(best, abs=1e-4)
    assert (out / "history.png").read_bytes()[:4] == (out / "parallel.png").read_bytes()[:4]
    assert main(["sample", str(out / "best"), "-n", "3"]) == 0
    assert main(["evaluate", str(out / "best"), "--split", "dev"]) == 0
    loss = re.search(r"loss (\d\.\d{4})", capsys.readouterr().out)[1]
    assert float(loss) == pytest.approx(best, abs=1.01e-4)
    # the same command again has nothing left to do and says what there is
    assert main(["sweep", words, *QUICK, "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == lines[-1]


# decaying weights at such a rate overflow at once, without it the losses are finite
@pytest.mark.parametrize(("decay", "named"), [("0", 6), ("1", 0)])
def test_a_sweep_of_which_every_trial_diverges_says_so_and_exits_with_1(
    words, tmp_path, capsys, decay, named
):
    out = tmp_path / "sweep"
    wild = ["--optimizer", "sgd", "--search", "lr=1e8,1e9", "--rungs", "", "--weight-decay", decay]
    assert main(["sweep", words, *QUICK, *wild, "--out", str(out)]) == 1
    printed, error = capsys.readouterr()
    assert "mlpkern sweep: error: every trial has diverged or failed\n" in error
    assert printed.count(" diverged: the train loss ") == named
    assert "0 of them to the last step" in printed
    assert "mlpkern sample" not in printed
    assert {row["state"] for row in table_of(out)} == {"pruned"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search", "width=1,2"], "sweep: width cannot be searched"),
        (["--search", "lr=0.1:"], "expected NAME=LOW:HIGH[:log], NAME=A,B,C or NAME=A..B as in lr"),
        (["--search", "lr=1:0"], "expected finite bounds low < high"),
        (["--lr", "0.1", "--search", "lr=0.1:1"], "lr: both given and searched"),
        (["--trials", "0"], "trials must be at least 1"),
        (["--rungs", "0.5,2"], "rungs must rise"),
        (["--plan", "absent.yaml"], "absent.yaml: cannot be read"),
        (["--hidden", "0"], "hidden must be one width or more"),
        (["--out", __file__], "exists and is not a folder"),
        (["--out", "."], "is not empty and not the folder of a sweep"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(
    words, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", words, "--out", "s", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()
