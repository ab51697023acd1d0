"""The confusion matrix: which symbols a model predicts for each target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mlpkern.lm.errors import ConfigError, DataError
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.plots.style import (
    LABEL_SIZE,
    TICK_SIZE,
    new_figure,
    shares_colormap,
    styled,
    symbol_labels,
    titled,
)
from mlpkern.lm.training.evaluation import row_logits
from mlpkern.lm.words.data import Split, Vocab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_VOCAB = 4096  # a larger matrix would take more than 128 MiB
MAX_SYMBOLS = 110  # shown at most, the most frequent targets


def confusion_shares(model: MLPLanguageModel, split: Split) -> Tensor:
    """(V, V) float64: of the rows with target t (first axis), the share in which symbol p (second
    axis) has the largest logit. A row sums to 1, or is nan for a target that does not occur.

    ConfigError for V > 4096.
    """
    vocab_size = model.vocab_size
    if vocab_size > MAX_VOCAB:
        raise ConfigError(
            f"confusion: a matrix has at most {MAX_VOCAB} symbols, the model {vocab_size}; "
            "confused_pairs takes any number"
        )
    cells = split.targets.long().cpu() * vocab_size + predictions(model, split)
    counts = torch.bincount(cells, minlength=vocab_size * vocab_size).double()
    matrix = counts.view(vocab_size, vocab_size)
    return matrix / matrix.sum(1, keepdim=True)


def predictions(model: MLPLanguageModel, split: Split) -> Tensor:
    """The symbol with the largest logit for every row of ``split``: (N,) int64, on the CPU."""
    return torch.cat([logits.argmax(-1).cpu() for logits, _ in row_logits(model, split)])


def confusion_plot(
    shares: Tensor, vocab: Vocab, *, counts: Tensor | None = None, title: str = ""
) -> Figure:
    """`confusion_shares` as a heat map: a row for each target, a column for each prediction, in the
    order of ``vocab``; without targets that do not occur.

    Args:
        counts: (V,) how often each symbol is a target. Of more than 110 symbols the most frequent
            are shown, and the last column sums the other predictions.
        title: a line above the picture, such as `run_caption`.
    """
    known = (~shares.isnan().any(1)).nonzero()[:, 0]
    if not len(known):
        raise DataError("confusion_plot: no target occurs")
    if len(vocab) <= MAX_SYMBOLS:
        rows, columns = known, torch.arange(len(vocab), device="cpu")
    else:
        order = known if counts is None else known[counts[known].argsort(descending=True)]
        rows = columns = order[:MAX_SYMBOLS].sort().values
    shown = shares[rows][:, columns]
    labels, families = symbol_labels(vocab.symbols)
    across = [labels[i] for i in columns]
    if len(columns) < len(vocab):
        shown = torch.cat([shown, 1 - shown.sum(1, keepdim=True)], dim=1).clamp(min=0)
        across.append("other" if vocab.level == "char" else "(others)")
    side = float(np.clip(1.4 + 0.16 * len(across), 5.5, 20))
    larger = max(1.0, side / 11)  # a large picture is viewed from farther away
    beside = 0.07 * max(map(len, across)) if vocab.level == "word" else 0.0  # words along the axes
    height = max(3.0, 1.4 + (side - 1.4) * len(rows) / len(across))
    figure = new_figure(side + beside + 0.9, height + 2 * beside)
    axes = figure.add_subplot()
    picture = axes.imshow(
        shown.numpy(), cmap=shares_colormap(), vmin=0, vmax=1, aspect="equal", interpolation="none"
    )
    styled(
        axes,
        title="Predicted symbol (largest probability) for each target, dev",
        xlabel="predicted",
        ylabel="target",
        grid=False,
        larger=larger,
    )
    long = max(map(len, across)) > 2
    axes.set_xticks(range(len(across)), across, family=families, rotation=90 if long else 0)
    axes.set_yticks(range(len(rows)), [labels[i] for i in rows], family=families)
    axes.tick_params(length=0, labelsize=TICK_SIZE + 0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    right, bottom = len(across) - 0.5, len(rows) - 0.5
    axes.vlines(np.arange(0.5, right), -0.5, bottom, color="white", linewidth=0.6)
    axes.hlines(np.arange(0.5, bottom), -0.5, right, color="white", linewidth=0.6)
    bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=5 * side, pad=0.015)
    bar.set_label("share of the target's rows", fontsize=LABEL_SIZE * larger)
    bar.ax.tick_params(labelsize=TICK_SIZE * larger)
    bar.outline.set_visible(False)
    titled(figure, title, larger=larger)
    return figure
