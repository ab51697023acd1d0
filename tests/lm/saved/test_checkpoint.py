"""Checkpoints: what is saved comes back, what is damaged is refused, nothing is half written."""

from __future__ import annotations

import json
import os

import pytest
import safetensors.torch
import torch
from support.lm.words import make_words

from mlpkern.lm import atomic_write
from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.checkpoint import load_checkpoint, load_model, save_checkpoint
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.engines import StockEngine
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import Vocab, build_dataset

CONFIG = TrainConfig(embedding_dim=4, hidden=(12, 5), steps=40, lr=((0, 0.1), (20, 0.05)), seed=9)
DATASET = build_dataset(make_words(), block_size=3)


@pytest.fixture
def run(tmp_path):
    """The folder of a short finished run and its trainer."""
    trainer = Trainer.start(
        CONFIG, DATASET, StockEngine(), run=RunFolder(tmp_path / "run"), data={"source": "test"}
    )
    trainer.train()
    return trainer


def rewritten(path, change_header=None, change_tensors=None):
    """Writes the checkpoint at ``path`` again with something changed, and without a digest, as
    earlier versions did."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["mlpkern"])
    del metadata["mlpkern.sha256"], header["digest"]
    if change_header:
        change_header(header)
    if change_tensors:
        change_tensors(tensors)
    metadata["mlpkern"] = json.dumps(header)
    path.write_bytes(safetensors.torch.save(tensors, metadata))


# what is saved comes back


def test_everything_comes_back(run):
    checkpoint = load_checkpoint(run.run.path)
    assert checkpoint.config == CONFIG
    assert checkpoint.vocab == DATASET.vocab
    assert (checkpoint.step, checkpoint.engine) == (40, "stock")
    assert checkpoint.data == {"source": "test"}
    assert checkpoint.seconds == run.seconds
    assert checkpoint.verified
    assert torch.equal(checkpoint.generator, run.state.generator.get_state())
    for name, p in run.state.model.state_dict().items():
        assert torch.equal(checkpoint.parameters[name], p)


def test_load_model_computes_what_was_saved(run):
    model, vocab = load_model(run.run.checkpoint, kernels="stock")
    ids = DATASET.splits["dev"].inputs[:20]
    assert torch.equal(model(ids), run.state.model(ids))
    assert vocab == DATASET.vocab
    assert not model.training


def test_other_programs_find_the_parameters_by_their_names(run):
    tensors = safetensors.torch.load_file(run.run.checkpoint)
    assert {n for n in tensors if not n.startswith("trainer.")} == set(run.state.model.state_dict())


def test_symbols_outside_ascii_come_back(run, tmp_path):
    checkpoint = load_checkpoint(run.run.path)
    symbols = (".", "é", "字", "😀", '"', *checkpoint.vocab.symbols[5:])
    changed = type(checkpoint)(**{**vars(checkpoint), "vocab": Vocab(symbols)})
    save_checkpoint(tmp_path / "x.safetensors", changed)
    assert load_checkpoint(tmp_path / "x.safetensors").vocab.symbols == symbols


# damage


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_truncated_file_is_refused_in_one_line(run, keep):
    path = run.run.checkpoint
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or no safetensors file") as error:
        load_checkpoint(run.run.path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_every_flipped_bit_is_refused_or_changes_nothing(run):
    """In any place of the file: header, settings, digest, weights, state."""
    path = run.run.checkpoint
    whole, expected = path.read_bytes(), load_checkpoint(path)
    size = int.from_bytes(whole[:8], "little")
    generator = torch.Generator().manual_seed(0)
    header = torch.randint(8 * (8 + size), (200,), generator=generator)
    tensors = torch.randint(8 * (8 + size), 8 * len(whole), (200,), generator=generator)
    names = [8 * whole.index(name) for name in (b"mlpkern.sha256", b"digest", b'"pt"')]
    refused = []
    for bit in [*header.tolist(), *tensors.tolist(), *names]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(path)
        except CheckpointError as error:
            refused.append(str(error))
        else:
            assert bit < 8 * (8 + size)  # such as the blanks that fill the header up
            assert found.parameters.keys() == expected.parameters.keys()
            for name, p in expected.parameters.items():
                assert torch.equal(found.parameters[name], p)
    assert len(refused) > 350
    assert all(str(path) in error and "\n" not in error for error in refused)


def test_a_file_of_an_earlier_version_is_read_and_said_to_be_unverified(run):
    rewritten(run.run.checkpoint)
    with pytest.warns(RuntimeWarning, match=r"model.safetensors: .* without a digest; damage"):
        checkpoint = load_checkpoint(run.run.path)
    assert not checkpoint.verified
    assert torch.equal(checkpoint.parameters["output.weight"], run.state.model.output.weight)
    save_checkpoint(run.run.checkpoint, checkpoint)
    assert load_checkpoint(run.run.path).verified


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=99), "checkpoint format 99, this version reads 1"),
        (lambda h: h.pop("vocab"), "not a checkpoint of mlpkern: no 'vocab'"),
        (lambda h: h["vocab"].append("a"), "a symbol occurs twice"),
        (lambda h: h["vocab"].append("%"), r"tensor embedding.weight .* expected \(10, 4\)"),
        (lambda h: h["config"].update(hidden=[12, 6]), r"tensor hidden.1.bias does not fit"),
        (lambda h: h["config"].update(hidden=[12]), r"tensor hidden.1.bias .* expected none"),
        (lambda h: h["config"].update(width=3), "unknown settings: width"),
        (lambda h: h["config"].update(lr="7"), "settings"),
        (lambda h: h["config"].update(batch_size=0), "batch_size must be at least 1"),
        (lambda h: h.update(step="many"), "invalid literal"),
    ],
)
def test_header_that_does_not_fit_is_refused(run, change, message):
    rewritten(run.run.checkpoint, change_header=change)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(run.run.path)
    assert "\n" not in str(error.value)


def test_missing_and_foreign_tensors_are_named(run, tmp_path):
    original = run.run.checkpoint.read_bytes()
    rewritten(run.run.checkpoint, change_tensors=lambda t: t.pop("output.bias"))
    with pytest.raises(CheckpointError, match=r"tensor output.bias .* got none"):
        load_checkpoint(run.run.path)
    run.run.checkpoint.write_bytes(original)
    rewritten(run.run.checkpoint, change_tensors=lambda t: t.pop("trainer.generator"))
    with pytest.raises(CheckpointError, match=r"no 'trainer.generator'"):
        load_checkpoint(run.run.path)
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="not a checkpoint of mlpkern"):
        load_checkpoint(other)


def test_resume_refuses_another_vocabulary(run):
    other = build_dataset([*make_words(), "xyz"], block_size=3)
    with pytest.raises(CheckpointError, match=r"another vocabulary .* differ in x y z"):
        Trainer.resume(load_checkpoint(run.run.path), other, StockEngine())


# atomic writing


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write.write_bytes(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        atomic_write.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_written_files_have_the_usual_permissions(run, tmp_path):
    atomic_write.write_bytes(tmp_path / "ours", b"")
    (tmp_path / "usual").write_bytes(b"")
    for path in (tmp_path / "ours", run.run.checkpoint, run.run.log):
        assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


# the run folder


def test_run_folder_is_never_taken_over_unasked(run, tmp_path):
    path = run.run.path
    with pytest.raises(CheckpointError, match=r"holds a run; continue it with --resume"):
        RunFolder.check_free(path)
    (path / "notes.txt").write_text("mine")
    RunFolder.check_free(path, force=True).remove_earlier()
    assert sorted(os.listdir(path)) == ["model.safetensors", "notes.txt"]
    run.run.checkpoint.unlink()
    for force in (False, True):
        with pytest.raises(CheckpointError, match="not empty and not the folder of a run"):
            RunFolder.check_free(path, force=force)
        with pytest.raises(CheckpointError, match="exists and is not a folder"):
            RunFolder.check_free(path / "notes.txt", force=force)
    (tmp_path / "empty").mkdir()
    RunFolder.check_free(tmp_path / "empty")
    RunFolder.check_free(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder"):
        RunFolder.open(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="not the folder of a run"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="stopped before its first checkpoint"):
        RunFolder.open(tmp_path)
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"its best run is .*best$"):
        RunFolder.open(tmp_path)
