"""The commands that look at finished runs: ``plot``, ``report``, ``compare``."""

from __future__ import annotations

import argparse

from mlpkern.cli.command import add_command
from mlpkern.cli.flags import add_checkpoint, add_machine, add_words
from mlpkern.cli.values import folder, path

__all__ = ["add_commands"]

_PLOT = """\
examples:
  mlpkern plot RUN                                     all four pictures, into the folder RUN
  mlpkern plot RUN --what embedding --out map.png

embedding: the symbols where the model puts them, vowels marked. loss: train and dev loss with the
n-gram baselines. lr: the learning rate of every step. confusion: what is predicted for each symbol
of the dev split. Needs matplotlib: pip install 'mlpkern[plots]'.
"""
_REPORT = """\
examples:
  mlpkern report RUN                    on the words it was trained on
  mlpkern report RUN other.txt          on other words, split the same way

Losses of the splits beside those of counting n-grams of the same words, the dev loss by place in
the word and by symbol, and whether the model is overfit (dev more than 5 % above train, or risen by
1 %), underfit (not better than counting with the same context, or still falling) or near capacity.
The curves go into RUN/curves.png. The last line is the test loss.
"""
_COMPARE = """\
examples:
  mlpkern compare runs/a runs/b
  mlpkern compare runs/* --out curves.png

A line for each run: losses over the whole splits, steps, seconds of training, engine, and the
settings that are not the same in all. With --out the curves of all, over the steps and over time.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds ``plot``, ``report``, ``compare``."""
    _add_plot(commands)
    _add_report(commands)
    _add_compare(commands)


def _add_plot(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.plot import plot_command

        return plot_command(args)

    summary = "draw pictures of a run"
    parser = add_command(commands, "plot", run, summary, _PLOT, leaves_files=lambda _: True)
    parser.add_argument("run", type=folder, metavar="RUN", help="run folder or model.safetensors")
    add_words(parser)
    add_checkpoint(parser)
    add = parser.add_argument
    add("--what", choices=("embedding", "loss", "lr", "confusion", "all"), default="all",
        help="which picture (all)")  # fmt: skip
    add(
        "--out",
        type=path,
        metavar="PNG",
        help="file for it (default RUN/WHAT.png, replaced if it is there)",
    )
    add("--force", action="store_true", help="replace an --out that is already there")
    add_machine(parser)


def _add_report(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.report import report_command

        return report_command(args)

    summary = "print losses, baselines and a verdict on a run, and draw its curves"
    parser = add_command(commands, "report", run, summary, _REPORT, leaves_files=lambda _: True)
    parser.add_argument("run", type=folder, metavar="RUN", help="run folder")
    add_words(parser)
    add_checkpoint(parser)
    add = parser.add_argument
    add(
        "--out",
        type=path,
        metavar="PNG",
        help="file for the curves (default RUN/curves.png, replaced)",
    )
    add("--force", action="store_true", help="replace an --out that is already there")
    add_machine(parser)


def _add_compare(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.compare import compare_command

        return compare_command(args)

    summary = "print runs side by side, and draw their curves"
    parser = add_command(
        commands, "compare", run, summary, _COMPARE, leaves_files=lambda args: bool(args.out)
    )
    add = parser.add_argument
    add("runs", type=folder, metavar="RUN", nargs="+", help="run folders, two or more")
    add("--out", type=path, metavar="PNG", help="draw the curves into this file")
    add("--force", action="store_true", help="replace an --out that is already there")
