"""``mlpkern plot``: pictures of a run, in its folder or where the user says."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mlpkern.cli.flags import add_device, add_picture, add_run

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from mlpkern.lm.saved.checkpoint import Checkpoint
    from mlpkern.lm.saved.run_folder import RunFolder
    from mlpkern.lm.words.data import Dataset

SUMMARY = "draw pictures of a run"
EPILOG = """\
examples:
  mlpkern plot RUN                                     all four pictures, into the folder RUN
  mlpkern plot RUN --what embedding --out map.png

embedding: the symbols where the model puts them, vowels marked. loss: train and dev loss with the
n-gram baselines. lr: the learning rate of every step. confusion: what is predicted for each symbol
of the dev split, with more than 200 symbols the most frequent mistakes.

Needs matplotlib: pip install 'mlpkern[plots]'.
"""
MOST_IN_MATRIX = 200  # symbols; of more, the confusion matrix would be white pixels
KINDS = ("embedding", "loss", "lr", "confusion")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(leaves_files=lambda _: True)
    add_run(parser)
    parser.add_argument("--what", choices=(*KINDS, "all"), default="all",
                        help="which picture (all)")  # fmt: skip
    add_picture(parser, "file for it (default RUN/WHAT.png, replaced if it is there)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    from mlpkern.cli.output import check_output
    from mlpkern.cli.session import chosen_checkpoint, chosen_device
    from mlpkern.lm.atomic_write import write_bytes
    from mlpkern.lm.errors import ConfigError
    from mlpkern.lm.plots import png, require_matplotlib
    from mlpkern.lm.saved.run_folder import RunFolder

    chosen = KINDS if args.what == "all" else (args.what,)
    if args.out and len(chosen) > 1:
        raise ConfigError("--out names one file; choose one picture with --what")
    require_matplotlib()
    device = chosen_device(args)
    checkpoint, which = chosen_checkpoint(args)
    if which:
        print(which)
    pictures = _Pictures(args, checkpoint, RunFolder.holding(args.run), device)
    for kind in chosen:
        # a picture in the folder of the run follows from it, so a new one may replace it
        own = not args.out
        path = pictures.folder.picture(kind) if own else args.out
        out = check_output(path, force=args.force or own)
        figure: Figure = getattr(pictures, kind)()
        write_bytes(out, png(figure))
        print(f"saved {out}")
    return 0


class _Pictures:
    """The pictures of a run, a method each; its words are loaded when one of them needs them."""

    def __init__(
        self,
        args: argparse.Namespace,
        checkpoint: Checkpoint,
        folder: RunFolder,
        device: torch.device,
    ) -> None:
        from mlpkern.lm.plots import run_caption

        self.args, self.checkpoint, self.folder, self.device = args, checkpoint, folder, device
        self._dataset: Dataset | None = None
        self._title = run_caption(folder, checkpoint)

    @property
    def dataset(self) -> Dataset:
        from mlpkern.lm.saved.checkpoint import check_vocab
        from mlpkern.lm.saved.run_words import dataset_of_run

        if self._dataset is None:
            dataset, _ = dataset_of_run(self.checkpoint, self.args.file, self.args.data)
            check_vocab(self.checkpoint.vocab, dataset.vocab)
            self._dataset = dataset
        return self._dataset

    def counts(self, split: str) -> torch.Tensor:
        """How often each symbol is a target."""
        import torch

        targets = self.dataset.splits[split].targets.long()
        return torch.bincount(targets, minlength=len(self.checkpoint.vocab))

    def embedding(self) -> Figure:
        from mlpkern.lm.plots.embedding import MAX_WORDS, embedding_plot

        vocab = self.checkpoint.vocab
        counts = self.counts("train") if len(vocab) > MAX_WORDS else None
        weight = self.checkpoint.parameters["embedding.weight"]
        return embedding_plot(weight, vocab, counts=counts, title=self._title)

    def loss(self) -> Figure:
        from mlpkern.lm.analysis.ngram import ngram_name
        from mlpkern.lm.analysis.report import ngram_losses
        from mlpkern.lm.errors import CheckpointError, DataError
        from mlpkern.lm.plots import loss_plot
        from mlpkern.lm.saved.log import read_log

        baselines = {}
        try:
            losses = ngram_losses(self.dataset, self.checkpoint.config.block_size)
            baselines = {ngram_name(n): loss for n, loss in losses.items()}
        except (CheckpointError, DataError) as error:
            print(f"without the lines of n-grams: {error}")
        return loss_plot(read_log(self.folder.log), baselines, title=self._title)

    def lr(self) -> Figure:
        from mlpkern.lm.plots import lr_plot

        return lr_plot(self.checkpoint.config, title=self._title)

    def confusion(self) -> Figure:
        from mlpkern.lm.plots import confused_pairs, confusion_plot, confusion_shares, pairs_plot

        model = self.checkpoint.make_model(self.args.kernels or "fused").to(self.device)
        dev, vocab = self.dataset.splits["dev"].to(self.device), self.checkpoint.vocab
        if len(vocab) > MOST_IN_MATRIX:
            return pairs_plot(confused_pairs(model, dev), vocab, title=self._title)
        shares = confusion_shares(model, dev)
        return confusion_plot(shares, vocab, counts=self.counts("dev"), title=self._title)
