"""What tests of commands share: short trainings, and what a command that fails prints."""

from __future__ import annotations

import argparse

import pytest

from mlpkern.cli import _parser, main

# A small model that learns quickly.
FAST = ["--hidden", "16", "--embedding-dim", "3", "--lr", "0.1@0"]


def parsers():
    """The parser of each command, by its name."""
    (group,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return group.choices


def train(*arguments):
    """The exit code of ``mlpkern train`` with these arguments."""
    return main(["train", *map(str, arguments)])


def fails(capsys, *arguments, code=2):
    """The one line on standard error of a command that fails."""
    assert main(list(map(str, arguments))) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"mlpkern {arguments[0]}: error: ")
    return error


def refused(capsys, *arguments):
    """The last line on standard error of a command whose arguments argparse refuses."""
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]
