"""Populations in a folder: its files, and that whatever ends the call, the next goes on from there
with the bits of a call that nothing interrupts."""

from __future__ import annotations

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.lm.population import ADAMW, BASE, DATASET
from support.lm.training import same_bits
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.lm.errors import CheckpointError, MissingPackageError, WriteError
from mlpkern.lm.many.kept.folder import PopulationFolder
from mlpkern.lm.model.config import SETTINGS
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.saved.checkpoint_file import read_settings
from mlpkern.lm.saved.folder_lock import FolderInUseError
from mlpkern.lm.training.progress import NoProgress

GROUP = importlib.import_module("mlpkern.lm.many.group")
KEPT = importlib.import_module("mlpkern.lm.many.kept.population")
STEPS = 3_000
FEW = lm.build_dataset(make_words(80), block_size=3)  # that a model overfits, so patience ends it
LONG = replace(BASE, hidden=(32,), batch_size=16, steps=STEPS, lr=((0, 0.3),), eval_every=100)
CONFIGS = [
    replace(LONG, patience=3),
    replace(LONG, seed=1),
    replace(LONG, seed=2, hidden=(9, 5)),
    replace(ADAMW, steps=STEPS, seed=3, hidden_dropout=0.1, eval_every=70),
    replace(LONG, seed=4, momentum=0.5, lr=((0, 0.1),)),
]
OPTIONS = {"keep_best": True, "max_points": 37}


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


def agree(some, others):
    """That the models of both are the same, to the bit."""
    for one, other in zip(some, others, strict=True):
        assert one.config == other.config
        assert (one.dev, one.stopped, one.diverged) == (other.dev, other.stopped, other.diverged)
        assert (one.best.step, one.best.dev) == (other.best.step, other.best.dev)
        assert torch.equal(one.losses, other.losses)
        for a, b in ((one.state, other.state), (one.best.state, other.best.state)):
            assert a.step == b.step
            assert same_bits(a.model.state_dict(), b.model.state_dict())
            assert same_bits(a.optimizer.state_dict(), b.optimizer.state_dict())
            assert torch.equal(a.generator.get_state(), b.generator.get_state())


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# the files


def test_the_files_hold_the_results(tmp_path, whole):
    trained = lm.population(CONFIGS, FEW, folder=tmp_path / "many", **OPTIONS)
    agree(trained, whole)
    folder = PopulationFolder(tmp_path / "many")
    names = {"population.json", "results.csv", "curves.csv", "models", "best"}
    assert set(os.listdir(folder.path)) == names
    for i, (row, one) in enumerate(zip(rows_of(folder.results), trained, strict=True)):
        assert int(row["model"]) == i
        assert all(row[n] == setting_text(getattr(one.config, n)) for n in SETTINGS)
        for name, value in {
            "dev_loss": one.dev.loss, "dev_accuracy": one.dev.accuracy,
            "best_dev_loss": one.best.dev.loss, "train_loss": one.losses[-1].item(),
        }.items():  # fmt: skip
            assert float(row[name]) == pytest.approx(value, abs=1e-6)
        steps = (one.best.step, one.state.step)
        assert (int(row["best_step"]), int(row["step"])) == steps
        assert (row["stopped"], row["diverged"]) == ("", "False")
        assert float(row["seconds"]) == pytest.approx(one.seconds, abs=1e-3)
    curves = rows_of(folder.curves)
    for i, one in enumerate(trained):
        own = [row for row in curves if int(row["model"]) == i]
        assert [np.float32(row["train_loss"]) for row in own] == one.losses.tolist()
        log = [(row.step, row.lr) for row in one.log_rows()]
        assert [(int(row["step"]), float(row["lr"])) for row in own] == log
    agree(lm.load_population(folder.path, FEW), trained)
    best = min(trained, key=lambda one: one.best.dev.loss)
    loaded = lm.load_checkpoint(folder.best.path, checkpoint=None)
    assert same_bits(loaded.parameters, best.best.model.state_dict())


def test_what_has_ended_is_not_trained_again(tmp_path, whole, monkeypatch):
    lm.population(CONFIGS, FEW, folder=tmp_path, **OPTIONS)
    best = (tmp_path / "best" / "model.safetensors").stat().st_mtime_ns

    def train_steps(*_arguments, **_options):
        raise AssertionError("trained again")

    monkeypatch.setattr(GROUP.mlpkern, "train_steps", train_steps)
    agree(lm.population(CONFIGS, FEW, folder=tmp_path, **OPTIONS), whole)
    # its run may have been continued: only a better one replaces it
    assert (tmp_path / "best" / "model.safetensors").stat().st_mtime_ns == best


def test_a_model_that_stopped_is_told_in_the_tables(tmp_path):
    bad = replace(BASE, seed=1, lr=((0, 0.1), (60, 1e38)))
    for _ in range(2):  # the second time from the files
        with pytest.warns(RuntimeWarning, match=r"configuration 1 stopped at step 6\d: "):
            trained = lm.population([BASE, bad], DATASET, folder=tmp_path)
    row = rows_of(tmp_path / "results.csv")[1]
    assert int(row["stopped"]) == trained[1].stopped
    last = trained[1].stopped
    assert int(rows_of(tmp_path / "curves.csv")[-1]["step"]) == last
    assert float(row["train_loss"]) == pytest.approx(trained[1].losses[last - 1].item(), abs=1e-6)


def test_parquet_holds_the_numbers_of_the_csv(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    lm.population([BASE, replace(BASE, seed=1)], DATASET, folder=tmp_path, parquet=True)
    columns = parquet.read_table(tmp_path / "curves.parquet").to_pydict()
    rows = rows_of(tmp_path / "curves.csv")
    assert list(columns) == list(rows[0])
    assert columns["model"] == [int(row["model"]) for row in rows]
    assert columns["step"] == [int(row["step"]) for row in rows]
    assert columns["train_loss"] == [np.float32(row["train_loss"]) for row in rows]
    assert columns["lr"] == [float(row["lr"]) for row in rows]


def test_without_pyarrow_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'mlpkern\[parquet\]'"):
        lm.population([BASE], DATASET, folder=tmp_path / "many", parquet=True)
    assert not (tmp_path / "many").exists()


def test_a_run_of_tensorboard_for_each_model(tmp_path):
    pytest.importorskip("tensorboard", reason="the event files need the package tensorboard")
    lm.population([BASE, replace(BASE, seed=1)], DATASET, folder=tmp_path, tensorboard=True)
    found = sorted(path.parent.name for path in tmp_path.glob("tensorboard/*/events.*"))
    assert found == ["0", "1"]


# what ends a call

KILLED = """
import importlib, sys
import torch
torch.set_num_threads(2)
sys.path[:0] = ["tests", "."]
from mlpkern import lm
test = importlib.import_module("lm.many.test_population_folder")
test.KEPT.SAVE_SECONDS, test.GROUP.CHUNK_SECONDS = 0.0, 0.01
lm.population(test.CONFIGS, test.FEW, folder=sys.argv[1], **test.OPTIONS)
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
    ("number", "threads"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)]
)
def test_a_signal_saves_and_tells_how_to_go_on(tmp_path, whole, number, threads):
    class Stopping(NoProgress):
        steps = 0

        def advance(self, steps):
            self.steps += steps
            if 7_000 < self.steps < 10**9:
                self.steps = 10**9
                os.kill(os.getpid(), number)

    torch.set_num_threads(threads)
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
