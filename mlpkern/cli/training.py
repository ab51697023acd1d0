"""The commands that train: ``train`` and ``find-lr``."""

from __future__ import annotations

import argparse

from mlpkern.cli.command import add_command
from mlpkern.cli.flags import add_machine, add_model, add_optimizer, add_text, add_words
from mlpkern.cli.values import folder, number, path, schedule, whole

__all__ = ["add_commands"]

PRESET_NAMES = ("quick", "lecture", "best")

_TRAIN = """\
examples:
  mlpkern train                                        the embedded names, a few seconds
  mlpkern train names.txt --preset lecture --out RUN   the run of the makemore lecture
  mlpkern train --data makemore --hidden 300 --lr 0.1,0.01@50000 --steps 100000
  mlpkern train --optimizer adamw --lr 0.004 --schedule cosine --input-dropout 0.1
  mlpkern train book.txt --level word --running --lower   any text, word by word
  mlpkern train --overfit-batch                        can the model learn one batch by heart?
  mlpkern train --eval-every 500 --patience 5          end when dev has stopped falling
  mlpkern train --resume RUN                           go on after Ctrl-C, bit for bit
  mlpkern train --resume RUN --steps 300000            go on after the end

The last two lines printed are the losses over the whole train and dev split. A run folder holds
config.json, log.csv, model.safetensors (the last model), best.safetensors (the one with the lowest
dev loss) and summary.json. A run that diverges is saved, says so, and exits with 1. At the size of
the lecture one thread is usually fastest: --threads 1.
"""
_FIND_LR = """\
examples:
  mlpkern find-lr                                     the embedded names
  mlpkern find-lr names.txt --preset lecture --seeds 8 --out lr.csv --png lr.png

Every seed trains while the learning rate grows from --low to --high, all of them at once. The last
two lines printed are the rate at which the median loss is lowest, and the one at which it falls
fastest, which is more cautious.
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds ``train``, ``find-lr``."""
    _add_train(commands)
    _add_find_lr(commands)


def _add_train(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        if args.overfit_batch:
            from mlpkern.cli.commands.overfit import overfit_command

            return overfit_command(args)
        from mlpkern.cli.commands.train import train_command

        return train_command(args)

    parser = add_command(
        commands, "train", run, "train the MLP language model on words", _TRAIN,
        leaves_files=lambda args: not args.overfit_batch,
    )  # fmt: skip
    add_words(parser)
    add_text(parser)
    add = parser.add_argument
    add("--preset", choices=PRESET_NAMES,
        help="settings that the flags below override: quick (default; 20,000 steps), lecture "
        "(makemore part 2; 200,000 steps) or best (a sweep's; 20,000 larger ones)")  # fmt: skip
    add("--out", type=folder, metavar="RUN", help="folder for the run (default runs/DATE-TIME)")
    add("--force", action="store_true", help="replace a run that is already in --out")
    add(
        "--resume", type=folder, metavar="RUN", help="continue this run where its checkpoint stands"
    )
    add("--overfit-batch", action="store_true",
        help="a sanity check instead of a run: the same batch in every step (of 1,000), until its "
        "loss is near the lowest possible")  # fmt: skip
    add_model(parser)
    steps = parser.add_argument_group("training").add_argument
    steps("--batch-size", type=whole, metavar="N", help="rows of a step (32)")
    steps("--steps", type=whole, metavar="S", help="optimizer steps of the whole run")
    steps("--lr", type=schedule, metavar="LR[,LR@STEP...]",
          help="learning rate, and others from later steps on: 0.1,0.01@100000")  # fmt: skip
    steps("--schedule", choices=("staged", "cosine"),
          help="staged (default): --lr as it is; cosine: it falls to 0 at the end")  # fmt: skip
    steps("--warmup", type=whole, metavar="S", help="steps over which the rate rises first (0)")
    steps("--seed", type=whole, help="seed of initial parameters, batches and dropout (0)")
    steps("--split-seed", type=whole, help="seed of the shuffle before the split (42)")
    steps("--engine", choices=("auto", "run", "ops", "stock"),
          help="run: thousands of steps in one call; ops: the fused ops, step by step; stock: the "
          "lecture's own torch code; auto (default): the fastest that applies")  # fmt: skip
    add_optimizer(parser)
    often = parser.add_argument_group("on the way").add_argument
    often("--log-every", type=whole, metavar="S", help="steps between log rows")
    often(
        "--eval-every", type=whole, metavar="S", help="steps between dev losses; 0: only at the end"
    )
    often("--patience", type=whole, metavar="N",
          help="end after N dev losses in a row above the lowest; 0 (default): never")  # fmt: skip
    often("--checkpoint-every", type=whole, metavar="S",
          help="steps between checkpoints; 0: only at the end")  # fmt: skip
    often("--tensorboard", action="store_true",
          help="write the log as event files into the run folder, too")  # fmt: skip
    add_machine(parser)


def _add_find_lr(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.cli.commands.find_lr import find_lr_command

        return find_lr_command(args)

    summary = "sweep the learning rate and suggest one"
    parser = add_command(
        commands, "find-lr", run, summary, _FIND_LR,
        leaves_files=lambda args: bool(args.out or args.png),
    )  # fmt: skip
    add_words(parser)
    add_text(parser)
    add = parser.add_argument
    add("--preset", choices=PRESET_NAMES, help="settings of the model (quick)")
    add("--out", type=path, metavar="CSV", help="write the curve to this file")
    add("--png", type=path, metavar="PNG", help="draw it: median, band over the seeds, suggestions")
    add("--force", action="store_true", help="replace files that are already there")
    add_model(parser)
    sweep = parser.add_argument_group("sweep").add_argument
    sweep("--low", type=number, default=1e-4, metavar="LR", help="first learning rate (0.0001)")
    sweep("--high", type=number, default=10.0, metavar="LR", help="last learning rate (10)")
    sweep(
        "--steps", type=whole, default=1_000, metavar="S", dest="sweep_steps", help="steps (1000)"
    )
    sweep("--batch-size", type=whole, metavar="N", help="rows of a step (32)")
    sweep("--seeds", type=whole, default=1, metavar="M", help="seeds side by side (1)")
    sweep("--seed", type=whole, help="the first of them (0)")
    sweep("--split-seed", type=whole, help="seed of the shuffle before the split (42)")
    add_machine(parser, kernels=False)
