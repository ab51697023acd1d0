"""``mlpkern info``: what this installation can do."""

from __future__ import annotations

import argparse

SUMMARY = "print backends, instruction set and versions"
EPILOG = """\
example:
  mlpkern info
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(args: argparse.Namespace) -> int:
    from mlpkern.info import report

    print(report())
    return 0
