"""The commands that look at finished runs: ``plot``."""

from __future__ import annotations

import argparse

from mlpkern.cli.arguments import add_machine, add_words
from mlpkern.cli.command import add_command

__all__ = ["add_commands"]

_PLOT = """\
examples:
  mlpkern plot RUN                                     all four pictures, into the folder RUN
  mlpkern plot RUN --what embedding --out map.png

embedding: the symbols where the model puts them, vowels marked. loss: train and dev loss with the
n-gram baselines. lr: the learning rate of every step. confusion: what is predicted for each symbol
of the dev split. Needs matplotlib: pip install 'mlpkern[plots]'.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds ``plot``."""
    _add_plot(commands)


def _add_plot(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.lm.plot_command import plot_command

        return plot_command(args)

    parser = add_command(commands, "plot", run, "draw pictures of a run", _PLOT)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    add_words(parser)
    add = parser.add_argument
    add("--what", choices=("embedding", "loss", "lr", "confusion", "all"), default="all",
        help="which picture (all)")  # fmt: skip
    add("--out", metavar="PNG", help="file for it (default RUN/WHAT.png, replaced if it is there)")
    add("--force", action="store_true", help="replace an --out that is already there")
    add_machine(parser)
