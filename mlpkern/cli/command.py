"""What every command's parser has: a summary, examples, and the function that runs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["add_command"]


def add_command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    epilog: str,
    *,
    leaves_files: Callable[[argparse.Namespace], bool] = lambda _: False,
) -> argparse.ArgumentParser:
    """The parser of a new command; ``run`` gets its arguments and returns the exit code.

    ``leaves_files``: whether, with these arguments, the command is run for files that it writes: it
    then goes on when what it prints finds no reader.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run_command=run, leaves_files=leaves_files)
    return parser
