"""The command about the installation: ``info``."""

from __future__ import annotations

import argparse

from mlpkern.cli.command import add_command

__all__ = ["add_commands"]

_INFO = """\
example:
  mlpkern info
"""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Adds ``info``."""
    _add_info(commands)


def _add_info(commands: argparse._SubParsersAction) -> None:
    def run(_: argparse.Namespace) -> int:
        from mlpkern.info import report

        print(report())
        return 0

    add_command(commands, "info", run, "print backends, instruction set and versions", _INFO)
