"""The parser of the command line: its errors are one line, which names what was probably meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from mlpkern.lm.errors import nearest


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's; but an unknown flag is named before anything that is wrong because of it,
        and a command's own parser refuses what it does not know, and a value ``--``, which argparse
        would turn into an empty list."""
        given = list(sys.argv[1:] if args is None else args)
        if self._subparsers is not None:
            self._check_flags(takewhile(lambda text: text.startswith("-"), given))
            return super().parse_known_args(given, namespace)
        self._check_flags(takewhile(lambda text: text != "--", given))
        for text in given:
            if re.fullmatch(r"--?\w[\w-]*=--", text):
                self.error(f"argument {text[:-3]}: expected a value, got '--'")
        values, unknown = super().parse_known_args(given, namespace)
        values.given = given
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return values, unknown

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def _check_flags(self, given: Iterable[str]) -> None:
        """An error for the first flag that there is not; a text with a space is no flag."""
        known = [flag for flag in self._option_string_actions if flag.startswith("--")]
        for text in given:
            flag = text.partition("=")[0]
            if re.fullmatch(r"--\S+", flag) and " " not in text and flag not in known:
                self.error(f"no flag {flag}{nearest(flag, known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        choices = [] if action.choices is None else list(action.choices)
        if action.choices is None or value in choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            self.error(f"no command {value!r}{nearest(value, choices)}")
        expected = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
        raise argparse.ArgumentError(
            action, f"expected {expected}, got {value!r}{nearest(value, choices)}"
        )
