"""``mlpkern ngram``: counts of n-grams, a line for each n, then samples of the last."""

from __future__ import annotations

import argparse

from mlpkern.cli.flags import add_setting, add_text, add_words
from mlpkern.cli.values import number, sizes, whole

SUMMARY = "count n-grams: the baseline of every model"
EPILOG = """\
examples:
  mlpkern ngram names.txt                  n = 1 to 5
  mlpkern ngram names.txt -n 2 --sample 10 --seed 1
  mlpkern ngram --data makemore -n 3 --k 1

Counts of n symbols in a row, with k added to every cell of the table; words and splits are those of
a training, so the losses compare with those of `mlpkern train`.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_words(parser)
    add_text(parser)
    add_setting(parser, "split_seed")
    add = parser.add_argument
    add("-n", type=sizes, default=(1, 2, 3, 4, 5), metavar="N[..N]",
        help="symbols of a gram, 1 to 5: 2 or 1..5 (1..5)")  # fmt: skip
    add("--k", type=number, help="added to every count (default: what is best on dev)")
    add("--sample", type=whole, default=0, metavar="N", help="words to draw from the last n (0)")
    add("--seed", type=whole, default=0, help="the same seed gives the same words (0)")


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.session import chosen_words, data_line
    from mlpkern.lm.analysis.ngram import MAX_N, ngram, ngram_name
    from mlpkern.lm.analysis.sample import sample
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.model.config import TrainConfig

    if args.sample < 0:
        raise ConfigError(f"--sample must be at least 0, got {args.sample}")
    for n in args.n:
        if not 1 <= n <= MAX_N:
            raise ConfigError(f"-n must be 1 to {MAX_N}, got {n}")
    split_seed = TrainConfig.split_seed if args.split_seed is None else args.split_seed
    config = TrainConfig(block_size=max(1, max(args.n) - 1), split_seed=split_seed)
    _, dataset, record = chosen_words(args, config)
    print(data_line(dataset, record))
    tables = [ngram(dataset, n, k=args.k) for n in args.n]
    wide = max(14, max(len(str(counted.cells)) for counted in tables))
    print(f"  n       {'cells':>{wide}}    empty          k   train     dev    test")
    for counted in tables:
        losses = "".join(f"{counted.loss(split):>8.4f}" for split in dataset.splits.values())
        empty = f"{100 * counted.empty_share:>6.2f} %"
        print(
            f"  {ngram_name(counted.n):<7} {counted.cells:>{wide}}  {empty}"
            f"  {counted.k:>9.4g}{losses}"
        )
    for word in sample(tables[-1], dataset.vocab, args.sample, seed=args.seed):
        print(word)
    return 0
