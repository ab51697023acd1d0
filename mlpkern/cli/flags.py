"""The arguments that several commands share."""

from __future__ import annotations

import argparse

from mlpkern.cli.values import number, path, whole, widths

__all__ = ["add_checkpoint", "add_machine", "add_model", "add_optimizer", "add_text", "add_words"]


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


def add_model(parser: argparse.ArgumentParser) -> None:
    """The sizes of a model and its initial parameters."""
    add = parser.add_argument_group("model").add_argument
    add("--block-size", type=whole, metavar="T", help="symbols of context (3)")
    add("--embedding-dim", type=whole, metavar="D", help="width of the embedding (10)")
    add("--hidden", type=widths, metavar="H[,H...]", help="width of each hidden layer (200)")
    add("--init", choices=("lecture", "scaled"),
        help="initial parameters: lecture: all N(0,1); scaled: by fan-in")  # fmt: skip


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    """The optimizer and what keeps it from overfitting; every engine does the same with them."""
    add = parser.add_argument_group("optimizer").add_argument
    add("--optimizer", choices=("sgd", "adamw"), help="sgd (default) or adamw")
    add("--momentum", type=number, metavar="M", help="of sgd (0)")
    add("--weight-decay", type=number, metavar="W",
        help="sgd: of all parameters; adamw: decoupled, not of biases (0)")  # fmt: skip
    add("--input-dropout", type=number, metavar="P", help="share of the embedded input zeroed (0)")
    add("--hidden-dropout", type=number, metavar="P", help="share of hidden outputs zeroed (0)")
    add(
        "--max-grad-norm", type=number, metavar="G", help="longer gradients are scaled to this norm"
    )
    add("--label-smoothing", type=number, metavar="E", help="0 to 1 (0)")


def add_words(parser: argparse.ArgumentParser) -> None:
    """FILE or --data: the words to read."""
    words = parser.add_mutually_exclusive_group()
    words.add_argument("file", nargs="?", type=path, metavar="FILE",
                       help="UTF-8 text, one word a line, or any with level word; - is standard "
                       "input; may be compressed by gzip")  # fmt: skip
    words.add_argument("--data", choices=("embedded", "makemore"),
                       help="instead of FILE: the names that come with the package, or the list of "
                       "the makemore project (downloaded once)")  # fmt: skip


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Which model of a run."""
    parser.add_argument("--checkpoint", choices=("best", "last"),
                        help="which model of RUN: the one with the lowest dev loss (the default "
                        "where there is one), or the last")  # fmt: skip


def add_machine(parser: argparse.ArgumentParser, *, kernels: bool = True) -> None:
    """--device and --threads, and --kernels where something is evaluated."""
    group = parser.add_argument_group("machine").add_argument
    if kernels:
        group("--kernels", choices=("fused", "stock"),
              help="forward for evaluation and sampling (train: the engine's; else "
              "fused)")  # fmt: skip
    group("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    group("--threads", type=whole, metavar="N", help="CPU threads (default: torch's choice)")
