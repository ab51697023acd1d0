"""A full disk: a training goes on, nothing is half written, and what waits is written later."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from support.command_line import fails
from support.lm.training import (
    CONFIG,
    DATASET,
    finished,
    log_without_seconds,
    same_bits,
    trainer,
)

from mlpkern.cli import main
from mlpkern.lm.atomic_write import append_lines, write_bytes, write_json
from mlpkern.lm.errors import WriteError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved import attempts
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.engines import ENGINES
from mlpkern.lm.training.trainer import Trainer

# log.csv fits into a page that it has already, so every row is followed by one that cannot be there
STEPS = TrainConfig(**{**CONFIG.to_json(), "log_every": 1, "hidden": (200,)})


class Events:
    """Calls functions at steps of ``run``: {step: function}."""

    def __init__(self, run, events):
        self.run, self.events = run, events

    def advance(self, steps):
        for step in [step for step in self.events if step <= self.run.state.step]:
            self.events.pop(step)()

    def row(self, row): ...

    def close(self): ...


@pytest.fixture(autouse=True)
def retry_at_once(monkeypatch):
    monkeypatch.setattr(attempts, "RETRY_SECONDS", 0.0)


# single files


def test_a_failed_write_is_one_line_and_leaves_the_file_as_it_was(disk):
    folder = disk.folder
    write_bytes(folder / "a", b"old")
    append_lines(folder / "b", b"1\n", head=b"head\n")
    disk.fill()
    large = b"x" * 10_000 + b"\n"
    for write, name in (
        (lambda: write_bytes(folder / "a", large), "a"),
        (lambda: write_json(folder / "a", large.decode()), "a"),
        (lambda: append_lines(folder / "b", large), "b"),
        (lambda: append_lines(folder / "b", large[:1] + b"\n" + large), "b"),
    ):
        with pytest.raises(WriteError) as error:
            write()
        assert str(error.value) == f"{folder / name}: cannot be written: {disk.message}"
        assert not error.value.wrong_place
    disk.free()
    assert (folder / "a").read_bytes() == b"old"
    append_lines(folder / "b", b"2\n", head=b"head\n")
    assert (folder / "b").read_bytes() == b"head\n1\n2\n"
    assert sorted(os.listdir(folder)) == ["a", "b"]


# a training


def test_a_training_outlives_a_disk_that_is_full_for_a_while(disk, tmp_path):
    whole = finished(tmp_path / "whole", config=STEPS)
    run = trainer(config=STEPS, run=RunFolder(disk.folder / "run"))
    run.progress = Events(run, {190: disk.fill, 470: disk.free})
    with pytest.warns(RuntimeWarning) as warned:
        run.train()
    messages = sorted(str(warning.message) for warning in warned)
    files = ("best.safetensors", "log.csv", "model.safetensors")
    for message, name in zip(messages, files, strict=True):
        assert message.startswith(
            f"{disk.folder / 'run' / name}: cannot be written: {disk.message}"
        )
        assert "\n" not in message
    assert log_without_seconds(run.run.log) == log_without_seconds(tmp_path / "whole" / "log.csv")
    found = load_checkpoint(run.run.path)
    assert found.step == 600
    assert same_bits(found.parameters, whole.state.model.state_dict())
    assert sorted(os.listdir(run.run.path)) == list(files)


def test_a_checkpoint_that_failed_is_tried_again_before_the_next_is_due(disk, monkeypatch):
    config = TrainConfig(**{**STEPS.to_json(), "checkpoint_every": 200})
    run = trainer(config=config, run=RunFolder(disk.folder / "run"))
    saved = []
    save = run.save
    run.save = lambda: (save(), saved.append(run.state.step))
    run.progress = Events(run, {200: disk.fill, 201: disk.free})
    monkeypatch.setattr(
        "mlpkern.lm.training.trainer.steps_to_boundary", lambda _, step: min(10, 20 - step % 20)
    )
    with pytest.warns(RuntimeWarning) as warned:
        run.train()
    assert any("model.safetensors: cannot" in str(warning.message) for warning in warned)
    assert saved == [210, 400, 600]


def test_what_has_no_room_at_the_end_is_an_error_and_the_older_checkpoint_stays(disk, tmp_path):
    whole = finished(tmp_path / "whole", config=STEPS)
    run = trainer(config=STEPS, run=RunFolder(disk.folder / "run"))
    run.progress = Events(run, {310: disk.fill})
    with (
        pytest.warns(RuntimeWarning, match="training goes on"),
        pytest.raises(WriteError, match=f"cannot be written: {disk.message}") as error,
    ):
        run.train()
    assert "\n" not in str(error.value)
    assert run.state.step == 600
    disk.free()
    checkpoint = load_checkpoint(run.run.path)
    assert checkpoint.step == 300
    assert not list(run.run.path.glob(".*"))
    rest = Trainer.resume(checkpoint, DATASET, ENGINES["stock"](), run=run.run)
    rest.train()
    assert torch.equal(rest.state.model.output.weight, whole.state.model.output.weight)
    assert log_without_seconds(run.run.log) == log_without_seconds(tmp_path / "whole" / "log.csv")


def test_the_command_ends_with_one_line_and_1(disk, words, capsys, monkeypatch):
    out = disk.folder / "run"
    command = ["train", words, "--hidden", "300", "--steps", "60", "--checkpoint-every", "20"]
    train = Trainer.train

    def on_a_full_disk(self):
        disk.fill()
        train(self)

    monkeypatch.setattr(Trainer, "train", on_a_full_disk)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*command, "--out", str(out)]) == 1
    disk.free()
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"mlpkern train: warning: {out}/") for line in lines[:-1])
    model = out / "model.safetensors"
    assert lines[-1] == f"mlpkern train: error: {model}: cannot be written: {disk.message}"
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("arguments", [["plot", "RUN", "--what", "lr"], ["report", "RUN"]])
def test_pictures_on_a_full_disk(disk, words, tmp_path, capsys, arguments):
    pytest.importorskip("matplotlib")
    out = str(disk.folder / "run")
    assert main(["train", words, "--hidden", "8", "--steps", "20", "--out", out]) == 0
    capsys.readouterr()
    disk.fill()
    error = fails(capsys, *[out if a == "RUN" else a for a in arguments], code=1)
    disk.free()
    assert f"cannot be written: {disk.message}" in error
    assert not list((disk.folder / "run").glob("*.png"))
