"""``mlpkern completion``: what makes a shell complete commands, flags, choices and file names."""

from __future__ import annotations

import argparse

from mlpkern.cli.values import folder, path

SUMMARY = "print a script with which a shell completes commands and flags"
EPILOG = """\
examples:
  mlpkern completion bash > ~/.local/share/bash-completion/completions/mlpkern
  mlpkern completion zsh > ~/.zfunc/_mlpkern        with ~/.zfunc in fpath, before compinit
  mlpkern completion fish > ~/.config/fish/completions/mlpkern.fish

The shell reads it when it starts; print it again after an update. Needs shtab:
pip install 'mlpkern[completion]'.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def run(args: argparse.Namespace) -> int:
    from mlpkern.lm.errors import MissingPackageError

    try:
        import shtab
    except ImportError as error:
        raise MissingPackageError.of("completion needs", "shtab", "completion", error) from None
    commands = args.program._subparsers._group_actions[0].choices.values()
    for action in (action for command in commands for action in command._actions):
        if action.type in (path, folder):
            action.complete = shtab.FILE if action.type is path else shtab.DIRECTORY
    print(shtab.complete(args.program, args.shell))
    return 0
