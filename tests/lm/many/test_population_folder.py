"""Populations in a folder: whatever ends a call, the next goes on with the bits of one that nothing
interrupts."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from support.lm.kept import CONFIGS, FEW, OPTIONS, STEPS, agree, rows_of
from support.lm.population import BASE, DATASET

from mlpkern import lm
from mlpkern.lm.errors import CheckpointError, WriteError
from mlpkern.lm.many import drawn_batches
from mlpkern.lm.many.kept.folder import PopulationFolder
from mlpkern.lm.saved.checkpoint_file import read_settings
from mlpkern.lm.saved.folder_lock import FolderInUseError
from mlpkern.lm.training.progress import NoProgress

GROUP = importlib.import_module("mlpkern.lm.many.group")
KEPT = importlib.import_module("mlpkern.lm.many.kept.population")


@pytest.fixture
def saves_often(monkeypatch):
    """Saves after every chunk, which is short."""
    monkeypatch.setattr(KEPT, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(GROUP, "CHUNK_SECONDS", 0.01)


@pytest.fixture(scope="module")
def whole():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lm.population(CONFIGS, FEW, **OPTIONS)
    torch.set_num_threads(threads)


def test_what_has_ended_is_not_trained_again(tmp_path, whole, monkeypatch):
    lm.population(CONFIGS, FEW, folder=tmp_path, **OPTIONS)
    best = (tmp_path / "best" / "model.safetensors").stat().st_mtime_ns

    def train_steps(*_arguments, **_options):
        raise AssertionError("trained again")

    monkeypatch.setattr(GROUP.mlpkern, "train_steps", train_steps)
    agree(lm.population(CONFIGS, FEW, folder=tmp_path, **OPTIONS), whole)
    # its run may have been continued: a call that trains nothing leaves it
    assert (tmp_path / "best" / "model.safetensors").stat().st_mtime_ns == best


def test_results_come_while_others_train(tmp_path, whole):
    class Counting(NoProgress):
        seen: set[int] = set()  # noqa: RUF012

        def advance(self, steps):
            self.seen.add(len(rows_of(tmp_path / "results.csv")))

    torch.set_num_threads(2)
    agree(lm.population(CONFIGS, FEW, folder=tmp_path, progress=Counting(), **OPTIONS), whole)
    assert any(0 < count < len(CONFIGS) for count in Counting.seen)


# what ends a call

KILLED = """
import importlib, sys
import torch
torch.set_num_threads(2)
sys.path[:0] = ["tests", "."]
from mlpkern import lm
from support.lm.kept import CONFIGS, FEW, OPTIONS
importlib.import_module("mlpkern.lm.many.kept.population").SAVE_SECONDS = 0.0
importlib.import_module("mlpkern.lm.many.group").CHUNK_SECONDS = 0.01
lm.population(CONFIGS, FEW, folder=sys.argv[1], **OPTIONS)
"""


def test_after_kill_9_the_same_call_goes_on(tmp_path, whole):
    folder = PopulationFolder(tmp_path / "many")
    begun = False
    with subprocess.Popen([sys.executable, "-c", KILLED, str(folder.path)]) as child:
        deadline = time.monotonic() + 60
        while not begun and child.poll() is None and time.monotonic() < deadline:
            for file in folder.models.glob("[0-9]*"):
                steps = [model["step"] for model in read_settings(file)["models"]]
                begun |= any(0 < step < STEPS for step in steps)
        child.kill()
    assert begun
    assert child.returncode == -signal.SIGKILL
    agree(lm.population(CONFIGS, FEW, folder=folder.path, **OPTIONS), whole)
    assert len(rows_of(folder.results)) == len(CONFIGS)
    assert not list(folder.path.rglob(".*"))  # neither the dead process's lock nor half a file


@pytest.mark.usefixtures("saves_often")
@pytest.mark.parametrize(
    ("number", "threads", "ahead"),
    [(signal.SIGINT, 1, False), (signal.SIGTERM, 1, True), (signal.SIGTERM, 2, False)],
)
def test_a_signal_saves_and_tells_how_to_go_on(
    tmp_path, whole, monkeypatch, number, threads, ahead
):
    """``ahead``: batches are drawn by threads while a chunk trains, as on a GPU."""

    class Stopping(NoProgress):
        steps = 0

        def advance(self, steps):
            self.steps += steps
            if 7_000 < self.steps < 10**9:
                self.steps = 10**9
                os.kill(os.getpid(), number)

    torch.set_num_threads(threads)
    monkeypatch.setattr(drawn_batches, "draws_ahead", lambda _: ahead)
    many = {**OPTIONS, "folder": tmp_path}
    with pytest.raises(lm.Interrupted, match=r"\d of 5 models; saved; .*: the same call") as error:
        lm.population(CONFIGS, FEW, progress=Stopping(), **many)
    assert error.value.signum == number
    assert error.value.step > 7_000
    ended = rows_of(tmp_path / "results.csv")
    assert len(ended) == len(lm.load_population(tmp_path, FEW)) < len(CONFIGS)
    agree(lm.population(CONFIGS, FEW, **many), whole)


@pytest.mark.usefixtures("saves_often")
def test_a_full_disk_ends_no_training(disk, whole):
    class Filling(NoProgress):
        def advance(self, steps):
            disk.fill()

    folder = disk.folder / "many"
    with (
        pytest.warns(RuntimeWarning, match="cannot be written: .*; training goes on"),
        pytest.raises(WriteError, match=f"cannot be written: {disk.message}"),
    ):
        lm.population(CONFIGS[:2], FEW, folder=folder, progress=Filling(), **OPTIONS)
    disk.free()
    agree(lm.population(CONFIGS[:2], FEW, folder=folder, **OPTIONS), whole[:2])


# what is refused


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"configs": [BASE]}, "holds another population: 2 models, not 1"),
        ({"configs": [BASE, replace(BASE, seed=2)]}, "model 1 with seed 1, not 2"),
        ({"configs": [replace(BASE, lr=((0, 0.2),))] * 2}, "model 0 with lr 0.1,0.02@100, not 0.2"),
        ({"dataset": FEW}, "other words"),
        ({"max_points": 9}, "max_points 2000, not 9"),
        ({"keep_best": True}, "keep_best False, not True"),
    ],
)
def test_another_population_is_refused_unless_forced(tmp_path, other, message):
    first = {"configs": [BASE, replace(BASE, seed=1)], "dataset": DATASET, "folder": tmp_path}
    trained = lm.population(**first)
    with pytest.raises(CheckpointError, match=message):
        lm.population(**{**first, **other})
    agree(lm.load_population(tmp_path, DATASET), trained)
    replaced = lm.population(**{**first, **other}, force=True)
    assert len(rows_of(tmp_path / "results.csv")) == len(replaced)


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "thesis.tex").touch()
    for path, message in (
        (tmp_path / "some", "is not empty and not the folder of a population"),
        (tmp_path / "some" / "thesis.tex", "exists and is not a folder"),
    ):
        for force in (False, True):
            with pytest.raises(CheckpointError, match=message):
                lm.population([BASE], DATASET, folder=path, force=force)
    for path in (tmp_path / "some", tmp_path / "none"):
        with pytest.raises(CheckpointError, match=r"no such folder|not the folder of a population"):
            lm.load_population(path)


def test_one_process_writes_and_damage_is_noticed(tmp_path):
    lm.population([BASE], DATASET, folder=tmp_path)
    folder = PopulationFolder(tmp_path)
    with folder.lock(), pytest.raises(FolderInUseError, match="only one process may"):
        lm.population([BASE], DATASET, folder=tmp_path)
    (file,) = folder.models.iterdir()
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file.name}: damaged"):
        lm.population([BASE], DATASET, folder=tmp_path)
    folder.record.write_text(json.dumps({"models": []}))
    with pytest.raises(CheckpointError, match=r"population.json: damaged"):
        lm.population([BASE], DATASET, folder=tmp_path)
