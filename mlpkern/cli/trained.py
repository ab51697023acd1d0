"""The commands on a trained model: ``sample`` and ``evaluate``."""

from __future__ import annotations

import argparse

from mlpkern.cli.command import add_command
from mlpkern.cli.flags import add_checkpoint, add_machine, add_words
from mlpkern.cli.values import folder, number, whole

__all__ = ["add_commands"]

_SAMPLE = """\
examples:
  mlpkern sample RUN -n 20
  mlpkern sample RUN -n 5 --prefix mar --temperature 0.8 --seed 7
  mlpkern sample RUN -n 20 --top-k 5

Standard output is one word a line, of a model with level word one sequence; the share of them that
the training words hold goes to standard error.
"""
_EVALUATE = """\
examples:
  mlpkern evaluate RUN                  all three splits of the words it was trained on
  mlpkern evaluate RUN --split dev
  mlpkern evaluate RUN other.txt        a model on other words, split the same way
  mlpkern evaluate RUN --checkpoint last   not the model with the lowest dev loss, but the last

Standard output is a line for each split; which model of the run it is goes to standard error where
the best is not the last.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds ``sample``, ``evaluate``."""
    _add_sample(commands)
    _add_evaluate(commands)


def _add_sample(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.train import sample_command

        return sample_command(args)

    parser = add_command(commands, "sample", run, "print words drawn from a trained model", _SAMPLE)
    add = parser.add_argument
    add("run", type=folder, metavar="RUN", help="run folder or model.safetensors")
    add_checkpoint(parser)
    add("-n", "--count", type=whole, default=20, help="number of words (20)")
    add("--seed", type=whole, default=0, help="the same seed gives the same words (0)")
    add("--prefix", default="", help="what every word, or text of a word model, starts with")
    add("--temperature", type=number, default=1.0,
        help="above 0; below 1: likelier words, above 1: wilder ones (1)")  # fmt: skip
    add("--top-k", type=whole, metavar="K", help="draw each symbol from the K likeliest (all)")
    add("--max-length", type=whole, default=100, help="cut words at this length (100)")
    add_machine(parser)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.train import evaluate_command

        return evaluate_command(args)

    summary = "print loss and accuracy of a trained model over whole splits"
    parser = add_command(commands, "evaluate", run, summary, _EVALUATE)
    parser.add_argument("run", type=folder, metavar="RUN", help="run folder or model.safetensors")
    add_words(parser)
    add_checkpoint(parser)
    splits = ("train", "dev", "test")
    parser.add_argument("--split", nargs="+", choices=splits, default=splits,
                        help="which splits (all three)")  # fmt: skip
    add_machine(parser)
