"""What commands make of their arguments: device, settings, words, a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from mlpkern.cli.output import folded
from mlpkern.lm.arguments import as_device
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import DEFAULT_PRESET, PRESETS, SETTINGS, TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.saved.checkpoint import Checkpoint, load_checkpoint, read_best
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.saved.run_words import load_words, make_dataset
from mlpkern.lm.words.data import Dataset
from mlpkern.lm.words.text import TextOptions
from mlpkern.lm.words.word_file import MAX_WORD_LENGTH

MOST_THREADS = 1024  # with far more, the process ends when a thread cannot be made


def chosen_device(args: argparse.Namespace) -> torch.device:
    """The device that ``--device`` names; ``--threads`` holds for the whole process from here on.

    ConfigError for a device that is not there, or an impossible number of threads.
    """
    device, threads = as_device(args.device), args.threads
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device must be cpu, cuda or cuda:N, got {args.device!r}")
    if threads is not None:
        if not 1 <= threads <= MOST_THREADS:
            raise ConfigError(f"--threads must be 1 to {MOST_THREADS}, got {threads}")
        torch.set_num_threads(threads)
    return device


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of `TrainConfig` that the command line names."""
    values = {name: getattr(args, name, None) for name in SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def chosen_config(args: argparse.Namespace, **defaults: Any) -> TrainConfig:
    """The settings of ``--preset``, with ``defaults`` in place of its own, and the given ones."""
    preset = PRESETS[args.preset or DEFAULT_PRESET]
    return preset.with_settings(**{**defaults, **given_settings(args)})


def chosen_words(
    args: argparse.Namespace, config: TrainConfig
) -> tuple[list[str], Dataset, dict[str, Any]]:
    """The words that the command line names, in their order; the dataset of them; and the record
    of them that a checkpoint keeps."""
    names = ("level", "lower", "running", "min_count")
    given = {name: getattr(args, name) for name in names}
    for name in ("running", "min_count"):
        if args.level != "word" and given[name] not in (None, False):
            raise ConfigError(f"--{name.replace('_', '-')} needs --level word")
    text = TextOptions(**{name: value for name, value in given.items() if value is not None})
    if text.level == "word" and args.max_word_length is not None:
        raise ConfigError("--max-word-length is for --level char")
    limit = MAX_WORD_LENGTH if args.max_word_length is None else args.max_word_length
    if limit < 1:
        raise ConfigError(f"--max-word-length must be at least 1, got {limit}")
    words, record = load_words(args.file, args.data or "embedded", limit, text)
    return words, make_dataset(words, config, record), record


def chosen_checkpoint(args: argparse.Namespace) -> tuple[Checkpoint, str]:
    """The checkpoint that RUN and ``--checkpoint`` name, and a line that says which one it is; the
    line is empty where there is only one, or the best is the last."""
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


def data_line(dataset: Dataset, data: dict[str, Any]) -> str:
    """The first line of a command that reads words: where they come from, and the rows."""
    rows = ", ".join(f"{len(s)} {name}" for name, s in dataset.splits.items())
    text = TextOptions.from_json(data.get("text", {}))
    found = f"{data['words']} {text.unit}"
    if text.level == "word":
        every = torch.cat([split.targets for split in dataset.splits.values()])
        count = int((every != 0).sum())
        found += f", {count} tokens, {100 * int((every == 1).sum()) / count:.1f} % of them <unk>"
    return folded(f"data    {data['source']}: {found}; rows: {rows}")


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
