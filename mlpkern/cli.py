"""The command line ``mlpkern``: its arguments, and how errors become one line and an exit code.

Exit codes: 0 done; 1 the work failed (loss not finite, disk full); 2 a wrong argument, file or run
folder; 128 + signal number when stopped (130 after Ctrl-C).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from mlpkern import __version__
from mlpkern.cli_arguments import (
    add_machine,
    add_max_word_length,
    add_model,
    add_words,
    schedule,
)

__all__ = ["main"]

_TRAIN = """\
examples:
  mlpkern train                                        the embedded names, a few seconds
  mlpkern train names.txt --preset lecture --out RUN   the run of the makemore lecture
  mlpkern train --data makemore --hidden 300 --lr 0.1,0.01@50000 --steps 100000
  mlpkern train --resume RUN                           go on after Ctrl-C, bit for bit
  mlpkern train --resume RUN --steps 300000            go on after the end

The last two lines printed are the losses over the whole train and dev split. A run folder holds
config.json, log.csv, model.safetensors and summary.json. At the size of the lecture one thread is
usually fastest: --threads 1.
"""
_SAMPLE = """\
examples:
  mlpkern sample RUN -n 20
  mlpkern sample RUN -n 5 --prefix mar --temperature 0.8 --seed 7
"""
_EVALUATE = """\
examples:
  mlpkern evaluate RUN                  all three splits of the words it was trained on
  mlpkern evaluate RUN --split dev
  mlpkern evaluate RUN other.txt        a model on other words, split the same way
"""
_FIND_LR = """\
examples:
  mlpkern find-lr                                     the embedded names
  mlpkern find-lr names.txt --preset lecture --seeds 8 --out lr.csv

Every seed trains while the learning rate grows from --low to --high, all of them at once. The last
two lines printed are the rate at which the median loss is lowest, and the one at which it falls
fastest, which is more cautious.
"""
_INFO = """\
example:
  mlpkern info
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. ``argv`` without the program's name."""
    parser = _parser()
    args = parser.parse_args(argv)
    from mlpkern.lm.errors import LMError, NonFiniteLossError
    from mlpkern.lm.stop_signal import Interrupted

    def fail(error: object, code: int) -> int:
        print(f"mlpkern {args.command}: error: {error}", file=sys.stderr)
        return code

    try:
        code = args.run_command(args)
        sys.stdout.flush()
        return code
    except LMError as error:
        return fail(error, 2)
    except NonFiniteLossError as error:
        return fail(error, 1)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signum
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mlpkern sample RUN -n 1000 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return fail(error, 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlpkern",
        description="Fused kernels for small PyTorch models, and the makemore MLP on them.",
        epilog="mlpkern COMMAND --help explains a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"mlpkern {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_info(commands)
    _add_train(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    _add_find_lr(commands)
    return parser


def _add_command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    epilog: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run_command=run)
    return parser


def _add_info(commands: argparse._SubParsersAction) -> None:
    def run(_: argparse.Namespace) -> int:
        from mlpkern.info import report

        print(report())
        return 0

    _add_command(commands, "info", run, "print backends, instruction set and versions", _INFO)


def _add_train(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.lm.commands import train_command

        return train_command(args)

    parser = _add_command(commands, "train", run, "train the MLP language model on words", _TRAIN)
    add_words(parser)
    add_max_word_length(parser)
    add = parser.add_argument
    add("--preset", choices=("quick", "lecture"),
        help="settings that the flags below override: quick (default; 20,000 steps) or lecture "
        "(makemore part 2; 200,000 steps)")  # fmt: skip
    add("--out", metavar="RUN", help="folder for the run (default runs/DATE-TIME)")
    add("--force", action="store_true", help="replace a run that is already in --out")
    add("--resume", metavar="RUN", help="continue this run where its checkpoint stands")
    add_model(parser)
    steps = parser.add_argument_group("training").add_argument
    steps("--batch-size", type=int, metavar="N", help="rows of a step (32)")
    steps("--steps", type=int, metavar="S", help="SGD steps of the whole run")
    steps("--lr", type=schedule, metavar="LR[,LR@STEP...]",
          help="learning rate, and others from later steps on: 0.1,0.01@100000")  # fmt: skip
    steps("--seed", type=int, help="seed of initial parameters and batches (0)")
    steps("--split-seed", type=int, help="seed of the shuffle before the split (42)")
    steps("--engine", choices=("auto", "run", "ops", "stock"),
          help="run: thousands of steps in one call; ops: the fused ops, step by step; stock: the "
          "lecture's own torch code; auto (default): the fastest that applies")  # fmt: skip
    often = parser.add_argument_group("on the way").add_argument
    often("--log-every", type=int, metavar="S", help="steps between log rows")
    often(
        "--eval-every", type=int, metavar="S", help="steps between dev losses; 0: only at the end"
    )
    often("--checkpoint-every", type=int, metavar="S",
          help="steps between checkpoints; 0: only at the end")  # fmt: skip
    add_machine(parser)


def _add_sample(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.lm.commands import sample_command

        return sample_command(args)

    parser = _add_command(
        commands, "sample", run, "print words drawn from a trained model", _SAMPLE
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder or model.safetensors")
    add("-n", "--count", type=int, default=20, help="number of words (20)")
    add("--seed", type=int, default=0, help="the same seed gives the same words (0)")
    add("--prefix", default="", help="what every word starts with")
    add("--temperature", type=float, default=1.0,
        help="above 0; below 1: likelier words, above 1: wilder ones (1)")  # fmt: skip
    add("--max-length", type=int, default=100, help="cut words at this length (100)")
    add_machine(parser)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.lm.commands import evaluate_command

        return evaluate_command(args)

    summary = "print loss and accuracy of a trained model over whole splits"
    parser = _add_command(commands, "evaluate", run, summary, _EVALUATE)
    parser.add_argument("run", metavar="RUN", help="run folder or model.safetensors")
    add_words(parser)
    splits = ("train", "dev", "test")
    parser.add_argument("--split", nargs="+", choices=splits, default=splits,
                        help="which splits (all three)")  # fmt: skip
    add_machine(parser)


def _add_find_lr(commands: argparse._SubParsersAction) -> None:
    def run(args: argparse.Namespace) -> int:
        from mlpkern.lm.commands import find_lr_command

        return find_lr_command(args)

    summary = "sweep the learning rate and suggest one"
    parser = _add_command(commands, "find-lr", run, summary, _FIND_LR)
    add_words(parser)
    add_max_word_length(parser)
    add = parser.add_argument
    add("--preset", choices=("quick", "lecture"), help="settings of the model (quick)")
    add("--out", metavar="CSV", help="write the curve to this file")
    add("--force", action="store_true", help="replace a file that is already there")
    add_model(parser)
    sweep = parser.add_argument_group("sweep").add_argument
    sweep("--low", type=float, default=1e-4, metavar="LR", help="first learning rate (0.0001)")
    sweep("--high", type=float, default=10.0, metavar="LR", help="last learning rate (10)")
    sweep("--steps", type=int, default=1_000, metavar="S", dest="sweep_steps", help="steps (1000)")
    sweep("--batch-size", type=int, metavar="N", help="rows of a step (32)")
    sweep("--seeds", type=int, default=1, metavar="M", help="seeds side by side (1)")
    sweep("--seed", type=int, help="the first of them (0)")
    sweep("--split-seed", type=int, help="seed of the shuffle before the split (42)")
    add_machine(parser, kernels=False)
