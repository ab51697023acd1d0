"""``mlpkern sample``: one word a line, then how many of them the model may know by heart."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mlpkern.cli.flags import add_device, add_run
from mlpkern.cli.values import number, whole

if TYPE_CHECKING:
    from mlpkern.lm.analysis.sample import NewWords
    from mlpkern.lm.saved.checkpoint import Checkpoint

SUMMARY = "print words drawn from a trained model"
EPILOG = """\
examples:
  mlpkern sample RUN -n 20
  mlpkern sample RUN -n 5 --prefix mar --temperature 0.8 --seed 7
  mlpkern sample RUN -n 20 --top-k 5
  mlpkern sample RUN -n 20 --new        words that nobody has: none of the training set

Standard output is one word a line, of a model with level word one sequence; on a terminal * marks
those that occur in the training set. How many do goes to standard error.
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
    add("--new", action="store_true",
        help="words that are not in the training set, nor empty; the others are drawn again, up to "
        "100 words for each")  # fmt: skip
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.session import chosen_checkpoint, chosen_device
    from mlpkern.lm.analysis.sample import sample, sample_new
    from mlpkern.lm.errors import LMError

    device = chosen_device(args)
    checkpoint, which = chosen_checkpoint(args)
    model = checkpoint.make_model(args.kernels or "fused").to(device).eval()
    vocab, count = checkpoint.vocab, args.count
    options: dict[str, Any] = {
        "seed": args.seed, "prefix": args.prefix, "temperature": args.temperature,
        "top_k": args.top_k, "max_length": args.max_length,
    }  # fmt: skip
    training: set[str] = set()
    if args.new:
        training = _training_words(checkpoint)
        found = sample_new(model, vocab, count, training, **options)
        words, line = found.words, _new_line(found, count)
    else:
        words = sample(model, vocab, count, **options)
        try:
            training = _training_words(checkpoint)
            line = _seen_line(words, training)
        except LMError as error:  # the file may be gone; the samples are good all the same
            line = f"how many of them occur in the training set is unknown: {error}"
    mark = "  *" if sys.stdout.isatty() else ""
    for word in words:
        print(f"{word}{mark}" if word in training else word)
    sys.stdout.flush()
    if which:
        print(which, file=sys.stderr)
    if count:
        print(line, file=sys.stderr)
    return 0


def _training_words(checkpoint: Checkpoint) -> set[str]:
    from mlpkern.lm.saved.run_words import dataset_of_run

    return set(map(checkpoint.vocab.as_read, dataset_of_run(checkpoint)[0].words["train"]))


def _seen_line(words: list[str], training: set[str]) -> str:
    from mlpkern.lm.analysis.sample import share_seen

    share = share_seen(words, training)
    seen = round(share * len(words))
    mark = "* " if seen and sys.stdout.isatty() else ""
    return f"{mark}{seen} of {len(words)} ({100 * share:.0f} %) occur in the training set"


def _new_line(found: NewWords, count: int) -> str:
    new, drawn = len(found.words), found.drawn
    share = (drawn - new) / max(1, drawn)
    line = f"{drawn - new} of {drawn} drawn ({100 * share:.0f} %) occur in the training set or are "
    line += "empty, and are left out"
    if new < count:
        line = f"only {new} of {count} words are new, try another --temperature or --prefix; {line}"
    return line
