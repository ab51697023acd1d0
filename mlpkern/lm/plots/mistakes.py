"""The mistakes that a model with many symbols makes most often: which symbol for which target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mlpkern.lm.errors import DataError
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.plots.confusion import predictions
from mlpkern.lm.plots.style import PALETTE, new_figure, styled, symbol_labels, titled
from mlpkern.lm.words.data import Split, Vocab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PAIRS = 30
LONGEST = 24  # letters of a label


@dataclass(frozen=True)
class ConfusedPair:
    """``count`` of the ``rows`` with target ``target`` have the largest logit at ``predicted``."""

    target: int
    predicted: int
    count: int
    rows: int

    @property
    def share(self) -> float:
        """The share of the target's rows, above 0 and at most 1."""
        return self.count / self.rows


def confused_pairs(
    model: MLPLanguageModel, split: Split, *, most: int = MOST_PAIRS
) -> list[ConfusedPair]:
    """The ``most`` frequent pairs of a target and another symbol predicted in its place, the most
    frequent first; in the memory of the rows, whatever the vocabulary."""
    targets, vocab_size = split.targets.long().cpu(), model.vocab_size
    cells = targets * vocab_size + predictions(model, split)
    cells, counts = cells[cells // vocab_size != cells % vocab_size].unique(return_counts=True)
    rows = torch.bincount(targets, minlength=vocab_size)
    order = counts.argsort(descending=True, stable=True)[:most]
    return [
        ConfusedPair(cell // vocab_size, cell % vocab_size, count, int(rows[cell // vocab_size]))
        for cell, count in zip(cells[order].tolist(), counts[order].tolist(), strict=True)
    ]


def pairs_plot(pairs: Sequence[ConfusedPair], vocab: Vocab, *, title: str = "") -> Figure:
    """`confused_pairs` as a list of bars: each as long as the pair is frequent, with the share of
    the target's rows; ``title``: a line above the picture."""
    if not pairs:
        raise DataError("pairs_plot: the model makes no mistakes")
    symbols = [vocab.symbols[i] for pair in pairs for i in (pair.target, pair.predicted)]
    labels, families = symbol_labels([_short(symbol) for symbol in symbols])
    figure = new_figure(9, 1.6 + 0.24 * len(pairs))
    axes = figure.add_subplot()
    styled(axes, title="Most frequent mistakes on dev: target → predicted", ylabel="",
           xlabel="rows, and how many of the target's rows that is")  # fmt: skip
    axes.barh(range(len(pairs)), [pair.count for pair in pairs], color=PALETTE["sky"],
              edgecolor=PALETTE["blue"], linewidth=0.8)  # fmt: skip
    named = zip(labels[::2], labels[1::2], strict=True)
    axes.set_yticks(range(len(pairs)), [f"{t} → {p}" for t, p in named], family=families)
    for place, pair in enumerate(pairs):
        text = f"{pair.count:,}, {100 * pair.share:.0f} % of {pair.rows:,}"
        axes.annotate(text, (pair.count, place), xytext=(4, 0), textcoords="offset points",
                      va="center", fontsize=8.5)  # fmt: skip
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * pairs[0].count)  # room for the text of the longest bar
    axes.grid(visible=False)  # every bar has its number
    axes.tick_params(axis="y", length=0)
    titled(figure, title)
    return figure


def _short(symbol: str) -> str:
    return symbol if len(symbol) <= LONGEST else symbol[: LONGEST - 1] + "…"
