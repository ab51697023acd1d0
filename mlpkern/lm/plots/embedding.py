"""The embedding as a map of the symbols, with vowels marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mlpkern.lm.plots.labels import place_labels
from mlpkern.lm.plots.style import (
    PALETTE,
    below,
    new_figure,
    styled,
    symbol_labels,
    titled,
)
from mlpkern.lm.words.data import Vocab
from mlpkern.lm.words.symbols import is_vowel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

MAX_LABELS, MAX_WORDS = 150, 80  # of letters, of words; the most frequent ones
# kind of symbol -> face, edge and shape of its box
_KINDS = {
    "vowel": (PALETTE["orange"], PALETTE["black"], "square,pad=0.28"),
    "other symbol": ("#d6ecf8", PALETTE["blue"], "circle,pad=0.22"),
    "boundary": (PALETTE["black"], PALETTE["black"], "circle,pad=0.22"),
}


def principal_components(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The first two principal components of the rows (V, D): coordinates (V, 2), shares (2,).

    With the singular value decomposition X = U S W' of the centered rows, the coordinates are U S
    and the shares of the variance S^2 / sum S^2. Signs: the entry of W with the largest magnitude
    is positive. For D <= 2 the coordinates are the rows (with a second column of zeros for D = 1).

    Examples:
        >>> rows = torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [4.0, 0.0, 1.0]])
        >>> principal_components(rows)[0][:, 0].round(decimals=6).tolist()
        [-2.0, 0.0, 2.0]
    """
    rows = weight.detach().cpu().double()
    centered = rows - rows.mean(0)
    if rows.shape[1] <= 2:
        spread = centered.square().sum(0)
        padded = torch.nn.functional.pad(rows, (0, 2 - rows.shape[1]))
        spread = torch.nn.functional.pad(spread, (0, 2 - len(spread)))
        return padded, spread / spread.sum().clamp(min=1e-300)
    u, s, wt = torch.linalg.svd(centered, full_matrices=False)
    u, s, wt = u[:, :2], s.square(), wt[:2]
    largest = wt.gather(1, wt.abs().argmax(1, keepdim=True))[:, 0]
    coordinates = u * s[: u.shape[1]].sqrt() * largest.sign()
    shares = s[:2] / s.sum().clamp(min=1e-300)
    missing = 2 - coordinates.shape[1]  # if there is one symbol
    return (
        torch.nn.functional.pad(coordinates, (0, missing)),
        torch.nn.functional.pad(shares, (0, missing)),
    )


def embedding_plot(
    weight: Tensor, vocab: Vocab, *, counts: Tensor | None = None, title: str = ""
) -> Figure:
    """The embedding (V, D) as a scatter of the symbols of ``vocab``.

    For D = 2 it is the plane of the embedding itself. For D > 2 the axes are the two principal
    components, labelled with their shares of the variance.
    Vowels are squares, other symbols circles, the boundary is black. Labels do not cover each
    other: one without room moves aside, with a line to its point.

    Args:
        counts: (V,) how often each symbol occurs. Only 150 letters, or 80 words, get labels: the
            most frequent ones, or without counts the first; the others are points.
        title: a line above the picture, such as `run_caption`.
    """
    coordinates, shares = principal_components(weight)
    points = coordinates.numpy()
    named = _named(vocab, counts)
    side = float(np.clip(7.5 * (len(named) / 40) ** 0.5, 7.5, 12))
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    dimension = weight.shape[1]
    styled(
        axes,
        title=_title(len(vocab), dimension, len(named)),
        xlabel=_axis(0, dimension, shares),
        ylabel=_axis(1, dimension, shares),
    )
    axes.scatter(points[:, 0], points[:, 1], s=7, color=PALETTE["grey"], zorder=2, linewidths=0)
    axes.margins(0.08)
    axes.set_aspect("equal", adjustable="datalim")
    words = vocab.level == "word"
    for kind, (face, edge, shape) in _KINDS.items():
        if words and kind == "vowel":
            continue
        kind = "word" if words and kind == "other symbol" else kind
        marker = "s" if shape.startswith("square") else "o"
        axes.scatter([], [], s=70, marker=marker, facecolor=face, edgecolor=edge, label=kind)
    below(figure)
    titled(figure, title)
    labels, families = symbol_labels([vocab.symbols[i] for i in named])
    texts = [
        _label(axes, points[i], label, _kind(i, vocab.symbols[i], words), families)
        for i, label in zip(named, labels, strict=True)
    ]
    _spread(figure, axes, texts, points[named])
    return figure


def _named(vocab: Vocab, counts: Tensor | None) -> list[int]:
    """The ids of the symbols with labels."""
    most = MAX_WORDS if max(map(len, vocab.symbols)) > 2 else MAX_LABELS
    if len(vocab) <= most or counts is None:
        return list(range(min(len(vocab), most)))
    return sorted(counts.argsort(descending=True, stable=True)[:most].tolist())


def _kind(i: int, symbol: str, word: bool) -> str:
    vowel = is_vowel(symbol) and not word
    return "boundary" if i == 0 else "vowel" if vowel else "other symbol"


def _label(axes: Axes, point: np.ndarray, label: str, kind: str, families: list[str]) -> Text:
    face, edge, shape = _KINDS[kind]
    if len(label) > 2 and shape.startswith("circle"):
        shape = "round,pad=0.22"
    return axes.text(
        point[0], point[1], label, ha="center", va="center", zorder=4, family=families,
        fontsize=9.5, color="white" if kind == "boundary" else "black",
        weight="bold" if kind == "boundary" else "normal",
        bbox={"boxstyle": shape, "facecolor": face, "edgecolor": edge, "linewidth": 0.9},
    )  # fmt: skip


def _spread(figure: Figure, axes: Axes, texts: list[Text], points: np.ndarray) -> None:
    """Moves the labels that would cover others, with lines to their points."""
    figure.draw_without_rendering()  # fixes the limits, the layout and the sizes of the boxes
    figure.set_layout_engine("none")
    to_pixels = axes.transData
    extents = [label_extent(text) for text in texts]
    sizes = np.array([[box.width, box.height] for box in extents])
    centers = np.array([[(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2] for box in extents])
    pixels = to_pixels.transform(points)
    offsets = centers - pixels  # the box of a letter is not quite centered on its position
    frame = axes.get_window_extent()
    target = place_labels(pixels, sizes, (frame.x0, frame.y0, frame.x1, frame.y1))
    for text, point, start, end, offset in zip(texts, points, pixels, target, offsets, strict=True):
        text.set_position(tuple(to_pixels.inverted().transform(end - offset)))
        if np.abs(end - start).max() > 0.5:
            line = to_pixels.inverted().transform(end)
            axes.plot(
                [point[0], line[0]], [point[1], line[1]], color=PALETTE["grey"], linewidth=0.8,
                zorder=1, scalex=False, scaley=False,
            )  # fmt: skip


def label_extent(text: Text) -> Bbox:
    """The pixels covered by the box of a label that has been drawn."""
    patch = text.get_bbox_patch()
    assert patch is not None
    return patch.get_window_extent()


def _title(count: int, dimension: int, named: int) -> str:
    title = f"Embedding of {count:,} symbols in {dimension} dimension{'s' * (dimension != 1)}"
    return title if named == count else f"{title}, the {named} most frequent named"


def _axis(i: int, dimension: int, shares: Tensor) -> str:
    if dimension <= 2:
        return f"dimension {i + 1}" if i < dimension else ""
    name = ("first", "second")[i] + " principal component"
    return f"{name} ({100 * shares[i].item():.0f} % of the variance)"
