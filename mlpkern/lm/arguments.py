"""What several commands make of their arguments: device, threads, settings, words."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from mlpkern.lm.checkpoint import Checkpoint
from mlpkern.lm.config import TrainConfig
from mlpkern.lm.data import MAX_WORD_LENGTH, Dataset, build_dataset, embedded_names, read_words
from mlpkern.lm.download import makemore_names
from mlpkern.lm.errors import CheckpointError, ConfigError
from mlpkern.lm.model import MLPLanguageModel

__all__ = [
    "data_line",
    "dataset_of_run",
    "given_settings",
    "load_words",
    "make_dataset",
    "print_words_and_model",
    "set_threads",
    "torch_device",
]

_SETTINGS = [field.name for field in dataclasses.fields(TrainConfig)]


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of `TrainConfig` that the command line names."""
    values = {name: getattr(args, name, None) for name in _SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def load_words(file: str | None, data: str, limit: int) -> tuple[list[str], dict[str, Any]]:
    """The words of ``file``, or of a known list, and the record of them that a checkpoint keeps."""
    if file is None and data == "embedded":
        words, source = embedded_names(), data
    elif file is None:
        words, source = read_words(makemore_names(), max_word_length=limit), data
    else:
        words, source = read_words(file, max_word_length=limit), str(Path(file).resolve())
    return words, {"source": source, "words": len(words), "max_word_length": limit}


def make_dataset(words: list[str], config: TrainConfig, data: dict[str, Any]) -> Dataset:
    """The dataset of ``words``; its digest goes into the record ``data``."""
    dataset = build_dataset(
        words, block_size=config.block_size, split_seed=config.split_seed, source=data["source"]
    )
    data["digest"] = dataset.digest
    return dataset


def dataset_of_run(
    checkpoint: Checkpoint,
    file: str | None = None,
    data: str | None = None,
    *,
    same_words: bool = False,
) -> tuple[Dataset, dict[str, Any]]:
    """The words a checkpoint was trained on, or those that ``file`` or ``data`` name instead.

    CheckpointError when the words on record are no longer what they were, and with ``same_words``
    when others are named.
    """
    named = file or data
    source = str(checkpoint.data.get("source", "embedded"))
    limit = int(checkpoint.data.get("max_word_length", MAX_WORD_LENGTH))
    if named:
        words, record = load_words(file, data or "embedded", limit)
    elif source in ("embedded", "makemore"):
        words, record = load_words(None, source, limit)
    else:
        words, record = load_words(source, "embedded", limit)
    dataset = make_dataset(words, checkpoint.config, record)
    if dataset.digest != checkpoint.data.get("digest") and (same_words or not named):
        raise CheckpointError(
            f"{record['source']}: not the words this run was trained on (SHA-256 of the words "
            f"{dataset.digest[:12]}…, then {str(checkpoint.data.get('digest'))[:12]}…)"
        )
    return dataset, record


def data_line(dataset: Dataset, data: dict[str, Any]) -> str:
    """The first line of a command that reads words: where they come from, and the rows."""
    rows = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits.items())
    return f"data    {data['source']}: {data['words']} words; rows: {rows}"


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
    if threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    torch.set_num_threads(threads)
