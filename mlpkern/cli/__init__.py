"""The command line ``mlpkern``: one parser, and how errors become one line and an exit code.

Each group of commands has a module with ``add_commands``.

Exit codes: 0 done; 1 the work failed (diverged, disk full); 2 a wrong argument, file or run
folder; 128 + signal number when stopped (130 after Ctrl-C). A command that leaves files goes on
without a display (streams.py), one that only prints ends with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Sequence

from mlpkern import __version__
from mlpkern.cli import analysis, streams, sweeping, trained, training, words
from mlpkern.cli.command import Parser, with_flags
from mlpkern.cli.commands import info as about

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. ``argv`` without the program's name."""
    with streams.prepared():
        args = _parser().parse_args(argv)
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    from mlpkern.lm.errors import LMError, NonFiniteLossError, WriteError
    from mlpkern.lm.memory import out_of_memory
    from mlpkern.lm.training.stop_signal import Interrupted, Terminated, terminating
    from mlpkern.registry import environment_problems

    def fail(error: object, code: int) -> int:
        print(f"mlpkern {args.command}: error: {error}", file=sys.stderr)
        return code

    def warn(message: Warning | str, *_: object, **__: object) -> None:
        print(f"mlpkern {args.command}: warning: {message}", file=sys.stderr, flush=True)

    if args.command != "info" and (problems := environment_problems()):
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
        return fail(with_flags(str(error), args.parser), 2)
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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mlpkern",
        description="Fused kernels for small PyTorch models, and the makemore MLP on them.",
        epilog="mlpkern COMMAND --help explains a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"mlpkern {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (about, words, training, trained, analysis, sweeping):
        group.add_commands(commands)
    return parser
