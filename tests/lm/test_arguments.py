"""What the public functions take besides their own objects, and what they say of other things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support.lm.training import CONFIG, DATASET, changed, same_bits
from support.lm.words import make_words

from mlpkern import lm

DEV = DATASET.splits["dev"]
SHORT = changed(steps=60)


def test_names_of_devices_engines_and_folders(tmp_path, words):
    engine, _ = lm.choose_engine("stock", "cpu")
    assert isinstance(engine, lm.StockEngine)
    path = str(tmp_path / "run")
    trainer = lm.Trainer.start(SHORT, DATASET, "stock", run=path)
    trainer.train()
    with pytest.raises(lm.CheckpointError, match="holds a run"):
        lm.Trainer.start(SHORT, DATASET, "stock", run=path)
    folder = lm.RunFolder(path)
    for given in (path, Path(path), folder):
        model, vocab = lm.load_model(given, device="cpu")
        assert same_bits(model.state_dict(), trainer.state.model.state_dict())
    assert [run.step for run in lm.compare([path, folder]).runs] == [60, 60]
    assert vocab == DATASET.vocab


def test_a_folder_is_enough_to_resume(tmp_path, words):
    from mlpkern.cli import main

    path = tmp_path / "run"
    small = ["--hidden", "24", "--embedding-dim", "4", "--batch-size", "8", "--lr", "0.1,0.05@40"]
    assert main(["train", words, *small, "--steps", "30", "--out", str(path)]) == 0
    before = lm.load_checkpoint(path)
    config = changed(steps=60, lr=((0, 0.1), (40, 0.05)))
    lm.Trainer.resume(str(path), config=config).train()
    whole = lm.Trainer.start(config, DATASET)
    whole.train()
    after = lm.load_checkpoint(path)
    assert after.step == 60
    assert after.data == before.data
    assert same_bits(after.parameters, whole.state.model.state_dict())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lm.choose_engine("rnu"), lm.ConfigError, "got 'rnu'; did you mean run?"),
        (lambda: lm.choose_engine("auto", "gpu"), lm.ConfigError,
         "device must be cpu, cuda or cuda:N, got 'gpu'"),
        (lambda: lm.load_model("x", device="gpu"), lm.ConfigError, "device must be cpu, cuda"),
        (lambda: lm.Trainer.start(CONFIG, DATASET, lm.RunEngine), TypeError,
         "engine must be auto, run, ops, stock, or an instance such as RunEngine(), got the class"),
        (lambda: lm.Trainer.start("quick", DATASET), TypeError,
         "config must be a TrainConfig, as in PRESETS[\"quick\"], got 'quick' (str)"),
        (lambda: lm.Trainer.start(CONFIG, make_words()), TypeError,
         "dataset must be a Dataset, as build_dataset makes it, got a list"),
        (lambda: lm.Trainer.start(changed(block_size=5), DATASET), lm.ConfigError,
         "block_size 5: the contexts of the dataset are of 3"),
        (lambda: lm.Trainer.resume("absent"), lm.CheckpointError, "absent: no such run folder"),
        (lambda: lm.build_dataset("names.txt", block_size=3), TypeError,
         "words must be a list, got 'names.txt' (str); read_words reads a file"),
        (lambda: lm.windows("emma", DATASET.vocab, 3), TypeError, "words must be a list"),
        (lambda: lm.read_words("names.txt", text="word"), TypeError,
         'text must be a TextOptions, as in TextOptions(level="word"), got \'word\' (str)'),
        (lambda: lm.evaluate(torch.nn.Identity(), DATASET), TypeError,
         'split must be a Split, as in dataset.splits["dev"], got a Dataset'),
        (lambda: lm.evaluate("runs/x", DEV), TypeError,
         "model must be a Module, as load_model returns it, got 'runs/x' (str)"),
        (lambda: lm.sample("runs/x", DATASET.vocab, 3), TypeError, "model must be a model, as"),
        (lambda: lm.sample(lm.ngram(DATASET, 1), DATASET, 3), TypeError, "vocab must be a Vocab"),
        (lambda: lm.compare("runs/x"), TypeError,
         "runs must be a list, got 'runs/x' (str); two run folders or more"),
        (lambda: lm.population(CONFIG, DATASET), TypeError, "configs must be a list"),
        (lambda: lm.ngram(make_words(), 3), TypeError, "dataset must be a Dataset"),
    ],
)  # fmt: skip
def test_something_else_is_one_clear_line(call, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(make_words()))
    with pytest.raises(error, match=re.escape(message)) as raised:
        call()
    assert "\n" not in str(raised.value)
