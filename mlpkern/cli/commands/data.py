"""``mlpkern data``: what a list of words consists of, and the first examples."""

from __future__ import annotations

import argparse

from mlpkern.cli.flags import add_setting, add_text, add_words
from mlpkern.cli.values import whole

SUMMARY = "print what a list of words consists of, and the first examples"
EPILOG = """\
examples:
  mlpkern data                             the embedded names
  mlpkern data names.txt --block-size 8 --show 2
  mlpkern data book.txt --level word --running --show 1
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_words(parser)
    add_text(parser)
    add_setting(parser, "split_seed")
    add_setting(parser, "block_size")
    parser.add_argument(
        "--show", type=whole, default=5, metavar="N", help="words whose examples are printed (5)"
    )


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.session import chosen_words, data_line, given_settings
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.model.config import TrainConfig
    from mlpkern.lm.words.describe import describe_dataset, show_windows

    if args.show < 0:
        raise ConfigError(f"--show must be at least 0, got {args.show}")
    config = TrainConfig(**given_settings(args))
    words, dataset, record = chosen_words(args, config)
    print(data_line(dataset, record))
    print(describe_dataset(dataset))
    if args.show:
        print(f"the first examples, {config.block_size} symbols of context:")
        print(show_windows(words[: args.show], dataset.vocab, config.block_size))
    return 0
