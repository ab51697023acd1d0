"""What several commands make of their arguments: device, threads, settings, words."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from mlpkern.lm.errors import CheckpointError, ConfigError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.saved.checkpoint import Checkpoint, load_checkpoint, read_best
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.words.data import (
    MAX_WORD_LENGTH,
    Dataset,
    build_dataset,
    embedded_names,
    read_words,
)
from mlpkern.lm.words.download import makemore_names
from mlpkern.lm.words.text import TextOptions
from mlpkern.lm.words.vocab import Vocab
from mlpkern.lm.words.word_file import check_readable_again, recorded_source

__all__ = [
    "chosen_checkpoint",
    "data_line",
    "dataset_of_run",
    "given_settings",
    "load_words",
    "make_dataset",
    "print_words_and_model",
    "set_threads",
    "torch_device",
    "words_of_arguments",
]

MOST_THREADS = 1024  # far more would end the process where a thread cannot be made

_SETTINGS = [field.name for field in dataclasses.fields(TrainConfig)]


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of `TrainConfig` that the command line names."""
    values = {name: getattr(args, name, None) for name in _SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def chosen_checkpoint(args: argparse.Namespace) -> tuple[Checkpoint, str]:
    """The checkpoint that RUN and ``--checkpoint`` name, and which that is, in words: nothing where
    there is only one, or the best is the last."""
    if args.checkpoint and Path(args.run).is_file():
        raise ConfigError(f"--checkpoint chooses in a run folder; {args.run} is a file")
    checkpoint = load_checkpoint(args.run, checkpoint=args.checkpoint)
    run = RunFolder.holding(args.run)
    if Path(args.run).is_file() or not (run.best.is_file() and run.checkpoint.is_file()):
        return checkpoint, ""
    best, last = read_best(run.best), read_best(run.checkpoint).step
    if best.step == last:
        return checkpoint, ""
    if checkpoint.step == last:
        return checkpoint, f"the last model, of step {last}; the best is of step {best.step}"
    return checkpoint, (
        f"the best model, of step {best.step} (dev loss {best.dev_loss:.4f}); the last, of step "
        f"{last}: --checkpoint last"
    )


def words_of_arguments(args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """`load_words` of a command that reads words for the first time."""
    names = ("level", "lower", "running", "min_count")
    given = {name: getattr(args, name) for name in names}
    text = TextOptions(**{name: value for name, value in given.items() if value is not None})
    if text.level != "word" and args.min_count is not None:
        raise ConfigError("--min-count needs --level word")
    if text.level == "word" and args.max_word_length is not None:
        raise ConfigError("--max-word-length is for --level char")
    limit = MAX_WORD_LENGTH if args.max_word_length is None else args.max_word_length
    if limit < 1:
        raise ConfigError(f"--max-word-length must be at least 1, got {limit}")
    return load_words(args.file, args.data or "embedded", limit, text)


def load_words(
    file: str | None, data: str, limit: int, text: TextOptions
) -> tuple[list[str], dict[str, Any]]:
    """The words of ``file``, or of a known list, and the record of them that a checkpoint keeps."""
    if file is None and data == "embedded":
        words, source = embedded_names(text=text), data
    else:
        path = makemore_names() if file is None else file
        words = read_words(path, max_word_length=limit, text=text)
        source = data if file is None else recorded_source(file)
    record = {"source": source, "words": len(words), "max_word_length": limit}
    return words, record if text == TextOptions() else {**record, "text": text.to_json()}


def make_dataset(
    words: list[str], config: TrainConfig, data: dict[str, Any], vocab: Vocab | None = None
) -> Dataset:
    """The dataset of ``words``; its digest goes into the record ``data``.

    ``vocab``: that of a model, which decides at level "word".
    """
    dataset = build_dataset(
        words, block_size=config.block_size, split_seed=config.split_seed, source=data["source"],
        text=TextOptions.from_json(data.get("text", {})), vocab=vocab,
    )  # fmt: skip
    data["digest"] = dataset.digest
    return dataset


def dataset_of_run(
    checkpoint: Checkpoint,
    file: str | None = None,
    data: str | None = None,
    *,
    same_words: bool = False,
) -> tuple[Dataset, dict[str, Any]]:
    """The words a checkpoint was trained on, or those that ``file`` or ``data`` name instead, read
    as they were, and at level "word" with its vocabulary.

    DataError when they came through a pipe; CheckpointError when the words on record are no longer
    what they were, and with ``same_words`` when others are named.
    """
    named = file or data
    source = str(checkpoint.data.get("source", "embedded"))
    limit = int(checkpoint.data.get("max_word_length", MAX_WORD_LENGTH))
    vocab = checkpoint.vocab
    own = {"level": vocab.level, "lower": vocab.lower}  # of a run that names no source
    text = TextOptions.from_json(checkpoint.data.get("text", own))
    if named:
        words, record = load_words(file, data or "embedded", limit, text)
    elif source in ("embedded", "makemore"):
        words, record = load_words(None, source, limit, text)
    else:
        check_readable_again(source)
        words, record = load_words(source, "embedded", limit, text)
    dataset = make_dataset(words, checkpoint.config, record, vocab)
    if dataset.digest != checkpoint.data.get("digest") and (same_words or not named):
        raise CheckpointError(
            f"{record['source']}: not the words this run was trained on (SHA-256 of the words "
            f"{dataset.digest[:12]}…, then {str(checkpoint.data.get('digest'))[:12]}…)"
        )
    return dataset, record


def data_line(dataset: Dataset, data: dict[str, Any]) -> str:
    """The first line of a command that reads words: where they come from, and the rows."""
    rows = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits.items())
    text = TextOptions.from_json(data.get("text", {}))
    found = f"{data['words']} {text.unit}"
    if text.level == "word":
        every = torch.cat([split.targets for split in dataset.splits.values()])
        count = int((every != 0).sum())
        found += f", {count} tokens, {100 * int((every == 1).sum()) / count:.1f} % of them <unk>"
    return f"data    {data['source']}: {found}; rows: {rows}"


def print_words_and_model(
    config: TrainConfig, model: MLPLanguageModel, dataset: Dataset, data: dict[str, Any]
) -> None:
    """The first two lines that a command prints about its words and its model."""
    hidden = "+".join(map(str, config.hidden))
    count = sum(p.numel() for p in model.parameters())
    print(data_line(dataset, data))
    print(
        f"model   {count} parameters (T={config.block_size}, D={config.embedding_dim}, H={hidden}, "
        f"V={model.vocab_size}), {config.init} init"
    )


def torch_device(name: str) -> torch.device:
    """The device that ``--device`` names; ConfigError for one that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device must be cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device must be cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def set_threads(threads: int | None) -> None:
    """``--threads``, for the whole process; None: torch's choice."""
    if threads is None:
        return
    if not 1 <= threads <= MOST_THREADS:
        raise ConfigError(f"--threads must be 1 to {MOST_THREADS}, got {threads}")
    torch.set_num_threads(threads)
