"""The flags that several commands share, and those of the settings of a run."""

from __future__ import annotations

import argparse
from typing import Any

from mlpkern.cli.values import folder, number, path, schedule, steps, whole, widths
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import DEFAULT_PRESET, PRESETS, SETTINGS, TrainConfig, settings_of
from mlpkern.lm.model.setting import OneOf, Rates, Real, Seed, Steps, Whole, Widths

_TYPES = {Whole: whole, Steps: steps, Seed: whole, Real: number, Widths: widths, Rates: schedule}


def add_setting(
    to: argparse._ActionsContainer,
    name: str,
    base: TrainConfig = PRESETS[DEFAULT_PRESET],
    help: str | None = None,
) -> None:
    """The flag of the setting ``name``.

    Args:
        base: the settings that hold without flags.
        help: a text that takes the place of the setting's own.
    """
    about, flag = SETTINGS[name], f"--{name.replace('_', '-')}"
    text = (help or about.told(getattr(base, name))).replace("%", "%%")
    if isinstance(about.kind, OneOf):
        to.add_argument(flag, choices=about.kind.values, help=text)
    else:
        kind = _TYPES[type(about.kind)]
        to.add_argument(flag, type=kind, metavar=about.metavar, help=text)


def setting_of_text(name: str, text: str) -> Any:
    """The value that the flag of the setting ``name`` makes of ``text``; ConfigError if none."""
    kind = SETTINGS[name].kind
    try:
        return text if isinstance(kind, OneOf) else _TYPES[type(kind)](text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"{name}: {error}") from None


def add_group(
    parser: argparse.ArgumentParser,
    title: str,
    base: TrainConfig = PRESETS[DEFAULT_PRESET],
    **helps: str,
) -> argparse._ArgumentGroup:
    """The flags of all settings of a group; returns that group of the parser."""
    group = parser.add_argument_group(title)
    for name in settings_of(title):
        add_setting(group, name, base, helps.get(name))
    return group


def add_words(parser: argparse.ArgumentParser) -> None:
    """FILE or --data: the words to read."""
    words = parser.add_mutually_exclusive_group()
    words.add_argument("file", nargs="?", type=path, metavar="FILE",
                       help="UTF-8 text, one word a line, or any with level word; - is standard "
                       "input; may be compressed by gzip")  # fmt: skip
    words.add_argument("--data", choices=("embedded", "makemore"),
                       help="instead of FILE: the names that come with the package, or the list of "
                       "the makemore project (downloaded once)")  # fmt: skip


def add_text(parser: argparse.ArgumentParser) -> None:
    """How a file is read for the first time; a run keeps it."""
    add = parser.add_argument_group("text").add_argument
    add("--level", choices=("char", "word"),
        help="char (default): a word a line, its characters are the symbols; word: any text, its "
        "words and punctuation marks are")  # fmt: skip
    add("--running", action="store_true",
        help="level word: a sequence is a paragraph (blank lines between; a long one is cut after "
        "every 256 tokens), not a line")  # fmt: skip
    add("--min-count", type=whole, metavar="N",
        help="level word: words that occur less often in train become <unk> (2)")  # fmt: skip
    add("--lower", action="store_true", help="turn the text into lower case")
    add("--max-word-length", type=whole, metavar="N",
        help="level char: longest word accepted (default 100)")  # fmt: skip


def add_run(
    parser: argparse.ArgumentParser,
    *,
    words: bool = True,
    help: str = "run folder or model.safetensors",
) -> None:
    """RUN, the words to use instead of its own, and --checkpoint."""
    parser.add_argument("run", type=folder, metavar="RUN", help=help)
    if words:
        add_words(parser)
    parser.add_argument("--checkpoint", choices=("best", "last"),
                        help="which model of RUN: the one with the lowest dev loss (the default "
                        "where there is one), or the last")  # fmt: skip


def add_picture(parser: argparse.ArgumentParser, help: str) -> None:
    """--out PNG, and --force."""
    parser.add_argument("--out", type=path, metavar="PNG", help=help)
    parser.add_argument("--force", action="store_true", help="replace a file that is already there")


def add_device(parser: argparse.ArgumentParser, *, kernels: bool = True) -> None:
    """--device and --threads, and --kernels where something is evaluated."""
    add = parser.add_argument_group("machine").add_argument
    if kernels:
        add("--kernels", choices=("fused", "stock"),
            help="forward for evaluation and sampling (train: the engine's; else "
            "fused)")  # fmt: skip
    add("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add("--threads", type=whole, metavar="N", help="CPU threads (default: torch's choice)")
