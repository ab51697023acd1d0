"""What every command's parser has: a summary, examples, the function that runs it, and errors of
one line that name the flag."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

__all__ = ["Parser", "add_command", "with_flags"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's; but a command's own parser refuses what it does not know, and a value
        ``--``, which argparse would turn into an empty list."""
        given = list(sys.argv[1:] if args is None else args)
        if self._subparsers is not None:
            return super().parse_known_args(given, namespace)
        for text in given:
            if re.fullmatch(r"--?\w[\w-]*=--", text):
                self.error(f"argument {text[:-3]}: expected a value, got '--'")
        values, unknown = super().parse_known_args(given, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return values, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


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
    parser.set_defaults(run_command=run, leaves_files=leaves_files, parser=parser)
    return parser


def with_flags(message: str, parser: argparse.ArgumentParser) -> str:
    """``message`` of a function with the flag in place of the name of the setting that it begins
    with, as in "steps must be at least 0"."""
    bare = re.sub(r"^(lr_finder|sweep): ", "", message)
    for action in parser._actions:
        for name in [action.dest, *(flag.lstrip("-") for flag in action.option_strings)]:
            if action.option_strings and bare.startswith(f"{name} "):
                return f"{action.option_strings[-1]}{bare.removeprefix(name)}"
    return message
