"""What several commands make of their arguments: device, threads, settings, words."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from mlpkern.lm.config import TrainConfig
from mlpkern.lm.data import Dataset, build_dataset, embedded_names, read_words
from mlpkern.lm.download import makemore_names
from mlpkern.lm.errors import ConfigError

__all__ = ["given_settings", "load_words", "make_dataset", "set_threads", "torch_device"]

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
