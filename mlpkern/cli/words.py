"""The commands about a list of words: ``data`` and ``ngram``."""

from __future__ import annotations

import argparse

from mlpkern.cli.command import add_command
from mlpkern.cli.flags import add_text, add_words
from mlpkern.cli.values import number, sizes, whole

__all__ = ["add_commands"]

_DATA = """\
examples:
  mlpkern data                             the embedded names
  mlpkern data names.txt --block-size 8 --show 2
  mlpkern data book.txt --level word --running --show 1
"""
_NGRAM = """\
examples:
  mlpkern ngram names.txt                  n = 1 to 5
  mlpkern ngram names.txt -n 2 --sample 10 --seed 1
  mlpkern ngram --data makemore -n 3 --k 1

Counts of n symbols in a row, with k added to every cell of the table; words and splits are those of
a training, so the losses compare with those of `mlpkern train`.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds ``data``, ``ngram``."""
    _add_data(commands)
    _add_ngram(commands)


def _add_data(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.data_and_ngram import data_command

        return data_command(args)

    summary = "print what a list of words consists of, and the first examples"
    parser = add_command(commands, "data", run, summary, _DATA)
    _add_words_and_split(parser)
    add = parser.add_argument
    add("--block-size", type=whole, default=3, metavar="T", help="symbols of context (3)")
    add("--show", type=whole, default=5, metavar="N", help="words whose examples are printed (5)")


def _add_ngram(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.data_and_ngram import ngram_command

        return ngram_command(args)

    summary = "count n-grams: the baseline of every model"
    parser = add_command(commands, "ngram", run, summary, _NGRAM)
    _add_words_and_split(parser)
    add = parser.add_argument
    add("-n", type=sizes, default=(1, 2, 3, 4, 5), metavar="N[..N]",
        help="symbols of a gram, 1 to 5: 2 or 1..5 (1..5)")  # fmt: skip
    add("--k", type=number, help="added to every count (default: what is best on dev)")
    add("--sample", type=whole, default=0, metavar="N", help="words to draw from the last n (0)")
    add("--seed", type=whole, default=0, help="the same seed gives the same words (0)")


def _add_words_and_split(parser: argparse.ArgumentParser) -> None:
    add_words(parser)
    add_text(parser)
    parser.add_argument(
        "--split-seed", type=whole, help="seed of the shuffle before the split (42)"
    )
