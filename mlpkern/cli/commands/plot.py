"""The command ``mlpkern plot``: pictures of a run, in its folder or where the user says."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from mlpkern.cli.output import check_output
from mlpkern.cli.session import chosen_checkpoint, set_threads, torch_device
from mlpkern.lm import plots
from mlpkern.lm.analysis.ngram import ngram_name
from mlpkern.lm.analysis.report import ngram_losses
from mlpkern.lm.atomic_write import write_bytes
from mlpkern.lm.errors import CheckpointError, ConfigError, DataError
from mlpkern.lm.plots.confusion import MAX_VOCAB
from mlpkern.lm.plots.embedding import MAX_WORDS
from mlpkern.lm.saved.checkpoint import Checkpoint, check_vocab
from mlpkern.lm.saved.log import read_log
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.saved.run_words import dataset_of_run
from mlpkern.lm.words.data import Dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_command"]


def plot_command(args: argparse.Namespace) -> int:
    """``mlpkern plot``: the picture that ``--what`` names, or all four."""
    kinds: dict[str, Callable[[_Run], Figure]] = {
        "embedding": _embedding,
        "loss": _loss,
        "lr": _lr,
        "confusion": _confusion,
    }
    chosen = list(kinds) if args.what == "all" else [args.what]
    if args.out and len(chosen) > 1:
        raise ConfigError("--out names one file; choose one picture with --what")
    plots.require_matplotlib()
    device = torch_device(args.device)
    set_threads(args.threads)
    checkpoint, which = chosen_checkpoint(args)
    if which:
        print(which)
    run = _Run(args, checkpoint, RunFolder.holding(args.run), device)
    for kind in chosen:
        # a picture in the folder of the run follows from it, so a new one may replace it
        own = not args.out
        path = run.folder.picture(kind) if own else args.out
        out = check_output(path, force=args.force or own)
        if kind == "confusion" and args.what == "all" and len(checkpoint.vocab) > MAX_VOCAB:
            print(f"no confusion: the model has more than {MAX_VOCAB} symbols")
            continue
        write_bytes(out, plots.png(kinds[kind](run)))
        print(f"saved {out}")
    return 0


class _Run:
    """What the pictures are made of, loaded when one of them needs it."""

    def __init__(
        self,
        args: argparse.Namespace,
        checkpoint: Checkpoint,
        folder: RunFolder,
        device: torch.device,
    ) -> None:
        self.args, self.checkpoint, self.folder, self.device = args, checkpoint, folder, device
        self._dataset: Dataset | None = None

    @property
    def dataset(self) -> Dataset:
        if self._dataset is None:
            dataset, _ = dataset_of_run(self.checkpoint, self.args.file, self.args.data)
            check_vocab(self.checkpoint.vocab, dataset.vocab)
            self._dataset = dataset
        return self._dataset

    def counts(self, split: str) -> torch.Tensor:
        """How often each symbol is a target."""
        targets = self.dataset.splits[split].targets.long()
        return torch.bincount(targets, minlength=len(self.checkpoint.vocab))


def _embedding(run: _Run) -> Figure:
    vocab = run.checkpoint.vocab
    counts = run.counts("train") if len(vocab) > MAX_WORDS else None
    return plots.embedding_plot(run.checkpoint.parameters["embedding.weight"], vocab, counts=counts)


def _loss(run: _Run) -> Figure:
    baselines = {}
    try:
        losses = ngram_losses(run.dataset, run.checkpoint.config.block_size)
        baselines = {ngram_name(n): loss for n, loss in losses.items()}
    except (CheckpointError, DataError) as error:
        print(f"without the lines of n-grams: {error}")
    return plots.loss_plot(read_log(run.folder.log), baselines)


def _lr(run: _Run) -> Figure:
    return plots.lr_plot(run.checkpoint.config)


def _confusion(run: _Run) -> Figure:
    model = run.checkpoint.make_model(run.args.kernels or "fused").to(run.device)
    shares = plots.confusion_shares(model, run.dataset.splits["dev"].to(run.device))
    return plots.confusion_plot(shares, run.checkpoint.vocab, counts=run.counts("dev"))
