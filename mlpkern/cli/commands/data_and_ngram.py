"""The commands about a list of words, before any training: ``data`` and ``ngram``."""

from __future__ import annotations

import argparse
import dataclasses

from mlpkern.cli.session import data_line, words_of_arguments
from mlpkern.lm.analysis.ngram import MAX_N, ngram, ngram_name
from mlpkern.lm.analysis.sample import sample
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.run_words import make_dataset
from mlpkern.lm.words.data import Dataset
from mlpkern.lm.words.describe import describe_dataset, show_windows

__all__ = ["data_command", "ngram_command"]


def data_command(args: argparse.Namespace) -> int:
    """``mlpkern data``: what the words consist of, and the first examples."""
    if args.show < 0:
        raise ConfigError(f"--show must be at least 0, got {args.show}")
    words, dataset = _load(args, args.block_size)
    print(describe_dataset(dataset))
    if args.show:
        print(f"the first examples, {args.block_size} symbols of context:")
        print(show_windows(words[: args.show], dataset.vocab, args.block_size))
    return 0


def ngram_command(args: argparse.Namespace) -> int:
    """``mlpkern ngram``: a line per n, then samples of the last."""
    if args.sample < 0:
        raise ConfigError(f"--sample must be at least 0, got {args.sample}")
    for n in args.n:
        if not 1 <= n <= MAX_N:
            raise ConfigError(f"-n must be 1 to {MAX_N}, got {n}")
    _, dataset = _load(args, max(1, max(args.n) - 1))
    tables = [ngram(dataset, n, k=args.k) for n in args.n]
    wide = max(14, max(len(str(counted.cells)) for counted in tables))
    print(f"  n       {'cells':>{wide}}    empty          k   train     dev    test")
    for counted in tables:
        losses = "".join(f"{counted.loss(split):>8.4f}" for split in dataset.splits.values())
        empty = f"{100 * counted.empty_share:>6.2f} %"
        print(
            f"  {ngram_name(counted.n):<7} {counted.cells:>{wide}}  {empty}"
            f"  {counted.k:>9.4g}{losses}"
        )
    for word in sample(tables[-1], dataset.vocab, args.sample, seed=args.seed):
        print(word)
    return 0


def _load(args: argparse.Namespace, block_size: int) -> tuple[list[str], Dataset]:
    """The words of the command line in their order, and as a dataset, split as for a training."""
    words, data = words_of_arguments(args)
    seed = TrainConfig.split_seed if args.split_seed is None else args.split_seed
    config = dataclasses.replace(TrainConfig(), block_size=block_size, split_seed=seed)
    dataset = make_dataset(words, config, data)
    print(data_line(dataset, data))
    return words, dataset
