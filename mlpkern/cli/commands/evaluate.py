"""``mlpkern evaluate``: loss and accuracy of a trained model over whole splits."""

from __future__ import annotations

import argparse
import sys

from mlpkern.cli.flags import add_device, add_run

SUMMARY = "print loss and accuracy of a trained model over whole splits"
EPILOG = """\
examples:
  mlpkern evaluate RUN                  all three splits of the words it was trained on
  mlpkern evaluate RUN --split dev
  mlpkern evaluate RUN other.txt        a model on other words, split the same way
  mlpkern evaluate RUN --checkpoint last   not the model with the lowest dev loss, but the last

Standard output is a line for each split; with less than 1,000 rows it says so, with the standard
error of the loss. Which model of the run it is goes to standard error where
the best is not the last, and so does the progress of a long evaluation.
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    splits = ("train", "dev", "test")
    parser.add_argument("--split", nargs="+", choices=splits, default=splits,
                        help="which splits (all three)")  # fmt: skip
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import rows_text
    from mlpkern.cli.session import chosen_checkpoint, chosen_device
    from mlpkern.lm.saved.checkpoint import check_vocab
    from mlpkern.lm.saved.run_words import dataset_of_run
    from mlpkern.lm.training.evaluation import FEW_ROWS, evaluate, row_losses, standard_error

    device = chosen_device(args)
    checkpoint, which = chosen_checkpoint(args)
    dataset, _ = dataset_of_run(checkpoint, args.file, args.data)
    check_vocab(checkpoint.vocab, dataset.vocab)
    model = checkpoint.make_model(args.kernels or "fused").to(device)
    if which:
        print(which, file=sys.stderr, flush=True)
    for name in args.split:
        split = dataset.splits[name].to(device)
        metrics, error = evaluate(model, split, shown_as=name), None
        if metrics.rows < FEW_ROWS:
            error = standard_error(row_losses(model, split).numpy())
        print(
            f"{name:<5} loss {metrics.loss:.4f}  accuracy {metrics.accuracy:.4f}"
            f"  ({rows_text(metrics.rows, error)})",
            flush=True,
        )
    return 0
