"""Who writes in a run folder, and what a start over an earlier or a killed run leaves of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from support.command_line import fails
from support.lm.training import CONFIG, DATASET, finished, trainer

from mlpkern.cli import main
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.saved.folder_lock import FolderInUseError, FolderLock
from mlpkern.lm.saved.log import read_log
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.engines import ENGINES
from mlpkern.lm.training.trainer import Trainer

FAST = ["--hidden", "8", "--embedding-dim", "3", "--log-every", "10", "--threads", "1"]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def train(words, out, *more):
    assert main(["train", words, *FAST, "--out", str(out), *map(str, more)]) == 0


# one writer at a time


def test_every_command_that_writes_a_run_is_refused_while_another_does(words, tmp_path, capsys):
    out = tmp_path / "run"
    train(words, out, "--steps", 20)
    capsys.readouterr()
    with FolderLock(out):
        before = contents(out)
        for arguments in (
            ["--out", out, "--force", "--steps", 10],
            ["--resume", out, "--steps", 40],
        ):
            named = [] if "--resume" in arguments else [words, *FAST]
            error = fails(capsys, "train", *named, *arguments)
            assert f"{out}: process {os.getpid()} (this one) on " in error
        assert contents(out) == before
        assert main(["plot", str(out), "--what", "lr"]) == 0  # pictures need no lock
    assert main(["train", "--resume", str(out), "--steps", "40"]) == 0
    assert load_checkpoint(out).step == 40


def test_two_trainers_of_one_process_do_not_share_a_folder(tmp_path):
    first, second = (trainer(run=RunFolder(tmp_path)) for _ in range(2))
    refused = []

    class Rival:
        def advance(self, steps):
            if not refused:
                with pytest.raises(FolderInUseError) as error:
                    second.train()
                refused.append(error)
                with pytest.raises(FolderInUseError):
                    second.save()

        def row(self, row): ...

        def close(self): ...

    first.progress = Rival()
    first.train()
    assert refused
    assert second.state.step == 0
    assert [row.step for row in read_log(tmp_path / "log.csv")] == list(range(50, 601, 50))
    second.train()  # the first has left


def test_a_run_whose_lock_was_taken_over_stops_without_writing(tmp_path):
    run = trainer(run=RunFolder(tmp_path))

    class Thief:
        def advance(self, steps):
            if run.state.step >= 300:
                text = (tmp_path / ".lock").read_text()
                (tmp_path / ".lock").write_text(text.replace('"token": "', '"token": "another'))

        def row(self, row): ...

        def close(self): ...

    run.progress = Thief()
    with pytest.raises(FolderInUseError, match="was taken over"):
        run.train()
    assert load_checkpoint(tmp_path).step < 300
    assert (tmp_path / ".lock").exists()


def test_a_new_run_that_another_process_was_quicker_with_is_refused(
    words,
    tmp_path,
    capsys,
    monkeypatch,
):
    out = tmp_path / "run"
    start = Trainer.start

    def slow(*args, **options):
        monkeypatch.undo()
        train(words, out, "--steps", 10)  # the other, from beginning to end
        return start(*args, **options)

    monkeypatch.setattr(Trainer, "start", slow)
    error = fails(capsys, "train", words, *FAST, "--out", out, "--steps", 20)
    assert f"{out}: holds a run" in error
    assert load_checkpoint(out).step == 10


def test_a_killed_process_blocks_nobody_and_its_files_are_removed(words, tmp_path):
    out = tmp_path / "run"
    command = ["train", words, *FAST, "--steps", "100000000", "--eval-every", "0"]
    command += ["--checkpoint-every", "1000", "--out", str(out)]
    with subprocess.Popen([sys.executable, "-m", "mlpkern", *command], stdout=-3) as process:
        while not (out / "model.safetensors").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (out / ".lock").exists()
    (out / ".model.safetensors.0123abcd.tmp").mkdir()
    (out / ".model.safetensors.0123abcd.tmp" / ".tmpX").write_bytes(b"half")
    (out / ".summary.json.x_3456zz.tmp").write_bytes(b"of an earlier version")
    (out / ".notes.0123abcd.tmp").write_bytes(b"not of the run")
    step = load_checkpoint(out).step
    assert main(["train", "--resume", str(out), "--steps", str(step + 10)]) == 0
    left = [name for name in os.listdir(out) if name.startswith(".")]
    assert left == [".notes.0123abcd.tmp"]


# a new run over an earlier one


def test_force_loses_nothing_before_the_new_run_begins(words, tmp_path, monkeypatch):
    out = tmp_path / "run"
    train(words, out, "--steps", 20)
    (out / "loss.png").write_bytes(b"picture")
    (out / ".log.csv.0123abcd.tmp").write_bytes(b"half")
    before = contents(out)
    save = Trainer.save

    def crash(self):
        raise ZeroDivisionError

    monkeypatch.setattr(Trainer, "save", crash)
    with pytest.raises(ZeroDivisionError):
        train(words, out, "--force", "--steps", 30)
    assert contents(out) == before
    monkeypatch.setattr(Trainer, "save", save)

    # a crash right after: what is there is the new run, at its beginning
    monkeypatch.setattr(RunFolder, "remove_earlier", crash)
    with pytest.raises(ZeroDivisionError):
        train(words, out, "--force", "--steps", 30)
    assert load_checkpoint(out).step == 0
    monkeypatch.undo()
    assert main(["train", "--resume", str(out)]) == 0
    steps = [row.step for row in read_log(out / "log.csv")]
    assert steps == sorted({*range(3, 31, 3), *range(10, 31, 10)})

    train(words, out, "--force", "--steps", 15)
    assert sorted(contents(out)) == [
        "best.safetensors", "config.json", "log.csv", "model.safetensors", "summary.json",
    ]  # fmt: skip


def test_a_folder_with_nothing_but_what_a_crash_left_is_free(words, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").write_text("")
    (out / ".model.safetensors.0123abcd.tmp").write_bytes(b"half")
    RunFolder.check_free(out)
    (out / "mine").write_text("")
    with pytest.raises(ValueError, match="not empty and not the folder of a run"):
        RunFolder.check_free(out)


def test_resume_removes_what_a_killed_run_left(tmp_path):
    finished(tmp_path)
    (tmp_path / ".model.safetensors.0123abcd.tmp").write_bytes(b"half")
    rest = Trainer.resume(
        load_checkpoint(tmp_path), DATASET, ENGINES["stock"](), config=CONFIG,
        run=RunFolder(tmp_path),
    )  # fmt: skip
    rest.train()
    assert not list(tmp_path.glob(".*"))
