"""The command that searches settings: ``sweep``."""

from __future__ import annotations

import argparse

from mlpkern.cli.command import add_command
from mlpkern.cli.flags import add_machine, add_model, add_optimizer, add_text, add_words
from mlpkern.cli.values import folder, number, path, schedule, shares, whole

__all__ = ["add_commands"]

_SWEEP = """\
examples:
  mlpkern sweep names.txt --out SWEEP            the default search, under ten minutes on two cores
  mlpkern sweep names.txt --out SWEEP --trials 96             goes on with the same study
  mlpkern sweep --trials 16 --steps 3000 --search lr=0.001:0.03:log --search hidden=64,128
  mlpkern sweep names.txt --block-size 3 --plan plan.yaml     what is given here is not searched
  mlpkern sample SWEEP/best

Trials train side by side; after some of the steps only those with the lowest dev loss go on. Any
number of processes may work on one folder, also from several machines. Ctrl-C keeps the study. The
test split is never looked at. Needs optuna, and pyyaml for --plan: pip install 'mlpkern[sweep]'.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds ``sweep``."""

    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.sweep import sweep_command

        return sweep_command(args)

    summary = "search settings, many runs at once"
    parser = add_command(commands, "sweep", run, summary, _SWEEP, leaves_files=lambda _: True)
    add_words(parser)
    add_text(parser)
    add = parser.add_argument
    add("--out", type=folder, metavar="SWEEP",
        help="folder of the study; an existing one goes on (runs/sweep-DATE)")  # fmt: skip
    add(
        "--plan",
        type=path,
        metavar="YAML",
        help="search space, fixed settings and budget from this file",
    )
    search = parser.add_argument_group("search").add_argument
    search("--search", action="append", metavar="NAME=VALUES",
           help="add to the space or replace: lr=0.001:0.01:log, hidden=128,256")  # fmt: skip
    search("--trials", type=whole, metavar="N",
           help="stop when the study has so many (64)")  # fmt: skip
    search("--minutes", type=number, metavar="M",
           help="begin no batch of trials that would end later; 0: no limit (9)")  # fmt: skip
    search("--batch", type=whole, metavar="N", help="trials that train together (16)")
    search("--shapes", type=whole, metavar="N", help="different shapes among them (8)")
    search("--rungs", type=shares, metavar="P[,P...]",
           help="shares of the steps after which trials are pruned (0.4)")  # fmt: skip
    search("--cooldown", type=number, metavar="P",
           help="there, the dev loss is that of a copy after this share of the steps so far at "
           "falling rates (0.1)")  # fmt: skip
    search("--keep", type=number, metavar="K", help="at a rung one in K goes on (4)")
    add_model(parser)
    steps = parser.add_argument_group("training").add_argument
    steps("--batch-size", type=whole, metavar="N", help="rows of a step (256)")
    steps("--steps", type=whole, metavar="S", help="optimizer steps of a trial (20000)")
    steps("--lr", type=schedule, metavar="LR[,LR@STEP...]", help="do not search it, take this")
    steps("--schedule", choices=("staged", "cosine"), help="of the learning rate (cosine)")
    steps("--warmup", type=whole, metavar="S", help="steps over which the rate rises first (500)")
    steps("--seed", type=whole, help="of the search, and of every trial (0)")
    steps("--split-seed", type=whole, help="seed of the shuffle before the split (42)")
    add_optimizer(parser)
    add_machine(parser, kernels=False)
