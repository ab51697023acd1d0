"""The command line ``mlpkern``: one parser, and how errors become one line and an exit code.

Each command is a module of ``commands``, with its parser and its work.

Exit codes: 0 done; 1 the work failed (diverged, disk full); 2 a wrong argument, file or run
folder; 128 + signal number when stopped (130 after Ctrl-C). A command that leaves files goes on
when its output fails (streams.py), one that only prints ends with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from mlpkern import __version__
from mlpkern.cli import streams
from mlpkern.cli.commands import (
    compare,
    completion,
    data,
    evaluate,
    find_lr,
    info,
    ngram,
    plot,
    population,
    report,
    runs,
    sample,
    sweep,
    train,
)
from mlpkern.cli.parser import Parser

__all__ = ["main"]

# In the order of `mlpkern --help`. Each has SUMMARY, EPILOG, add_flags(parser) and run(args).
COMMANDS: dict[str, ModuleType] = {
    "info": info, "data": data, "ngram": ngram, "train": train, "find-lr": find_lr,
    "sample": sample, "evaluate": evaluate, "plot": plot, "report": report, "compare": compare,
    "runs": runs, "sweep": sweep,
    "population": population, "completion": completion,
}  # fmt: skip
# these need no backend, and work where an environment variable of the backends is wrong
WITHOUT_BACKEND = ("info", "completion")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. ``argv`` without the program's name."""
    with streams.prepared():
        args = _parser().parse_args(argv)
        return _run(args)


def _parser() -> Parser:
    parser = Parser(
        prog="mlpkern",
        description="Fused kernels for small PyTorch models, and the makemore MLP on them.",
        epilog="mlpkern COMMAND --help explains a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"mlpkern {__version__}")
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        summary = command.SUMMARY
        own = group.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=command.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # leaves_files: whether the command, with these arguments, is run for files that it writes
        own.set_defaults(
            run_command=command.run, parser=own, program=parser, leaves_files=lambda _: False
        )
        command.add_flags(own)
    return parser


def _run(args: argparse.Namespace) -> int:
    from mlpkern.lm.errors import LMError, NonFiniteLossError, WriteError
    from mlpkern.lm.memory import out_of_memory
    from mlpkern.lm.training.progress import print_above
    from mlpkern.lm.training.stop_signal import Interrupted, Terminated, terminating

    def fail(error: object, code: int) -> int:
        print(f"mlpkern {args.command}: error: {error}", file=sys.stderr)
        return code

    def warn(message: Warning | str, *_: object, **__: object) -> None:
        print_above(f"mlpkern {args.command}: warning: {message}")

    if args.command not in WITHOUT_BACKEND:
        from mlpkern.registry import environment_problems

        if problems := environment_problems():
            return fail(problems[0], 2)
    works = args.leaves_files(args)
    try:
        with (
            streams.unfailing_output(args.command) if works else contextlib.nullcontext(),
            warnings.catch_warnings(),
            terminating(),
        ):
            warnings.showwarning = warn
            code: int = args.run_command(args)
            sys.stdout.flush()
            return code
    except WriteError as error:
        return fail(error, 2 if error.wrong_place else 1)
    except LMError as error:
        return fail(_with_flag(str(error), args.parser), 2)
    except NonFiniteLossError as error:
        return fail(error, 1)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signum
    except Terminated as ended:
        print(f"ended by {ended}", file=sys.stderr)
        return 128 + ended.signum
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mlpkern sample RUN -n 1000 | head`
        return 1
    except OSError as error:
        return fail(error, 1)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return fail(f"not enough memory for these sizes: {str(error)[:200]!r}", 1)


def _with_flag(message: str, parser: argparse.ArgumentParser) -> str:
    """``message`` with a flag in place of the setting that it begins with: "steps must be at least
    0" becomes "--steps must be at least 0"."""
    bare = re.sub(r"^(find_lr|lr_finder|sweep): ", "", message)
    for action in parser._actions:
        for name in [action.dest, *(flag.lstrip("-") for flag in action.option_strings)]:
            if action.option_strings and bare.startswith(f"{name} "):
                return f"{action.option_strings[-1]}{bare.removeprefix(name)}"
    return message
