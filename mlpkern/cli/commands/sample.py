"""``mlpkern sample``: one word a line, then how many of them the model may know by heart."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mlpkern.cli.flags import add_device, add_run
from mlpkern.cli.values import number, whole

if TYPE_CHECKING:
    from mlpkern.lm.saved.checkpoint import Checkpoint

SUMMARY = "print words drawn from a trained model"
EPILOG = """\
examples:
  mlpkern sample RUN -n 20
  mlpkern sample RUN -n 5 --prefix mar --temperature 0.8 --seed 7
  mlpkern sample RUN -n 20 --top-k 5

Standard output is one word a line, of a model with level word one sequence; the share of them that
the training words hold goes to standard error.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_run(parser, words=False)
    add = parser.add_argument
    add("-n", "--count", type=whole, default=20, help="number of words (20)")
    add("--seed", type=whole, default=0, help="the same seed gives the same words (0)")
    add("--prefix", default="", help="what every word, or text of a word model, starts with")
    add("--temperature", type=number, default=1.0,
        help="above 0; below 1: likelier words, above 1: wilder ones (1)")  # fmt: skip
    add("--top-k", type=whole, metavar="K", help="draw each symbol from the K likeliest (all)")
    add("--max-length", type=whole, default=100, help="cut words at this length (100)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.session import chosen_checkpoint, chosen_device
    from mlpkern.lm.analysis.sample import sample

    device = chosen_device(args)
    checkpoint, which = chosen_checkpoint(args)
    model = checkpoint.make_model(args.kernels or "fused").to(device).eval()
    words = sample(
        model, checkpoint.vocab, args.count, seed=args.seed, prefix=args.prefix,
        temperature=args.temperature, top_k=args.top_k, max_length=args.max_length,
    )  # fmt: skip
    for word in words:
        print(word)
    sys.stdout.flush()
    if which:
        print(which, file=sys.stderr)
    if words:
        print(_seen_line(words, checkpoint), file=sys.stderr)
    return 0


def _seen_line(words: list[str], checkpoint: Checkpoint) -> str:
    from mlpkern.lm.analysis.sample import share_seen
    from mlpkern.lm.errors import LMError
    from mlpkern.lm.saved.run_words import dataset_of_run

    try:
        training = map(checkpoint.vocab.as_read, dataset_of_run(checkpoint)[0].words["train"])
    except LMError as error:  # the file may be gone; the samples are good all the same
        return f"how many of them occur in the training set is unknown: {error}"
    share = share_seen(words, training)
    return (
        f"{round(share * len(words))} of {len(words)} ({100 * share:.0f} %) occur in the "
        "training set"
    )
