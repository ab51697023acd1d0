"""What tests of commands share: a file of words, and the one line of a command that fails."""

from __future__ import annotations

import argparse

import pytest
from support.lm_words import make_words

from mlpkern.cli import _parser, main


@pytest.fixture
def words(tmp_path):
    """The path of a text file with 300 random words over the letters a to h."""
    path = tmp_path / "words.txt"
    path.write_text("\n".join(make_words()) + "\n")
    return str(path)


def parsers():
    """The parser of each command, by its name."""
    (group,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return group.choices


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
