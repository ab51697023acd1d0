"""Numbers at the ends of curves, none of which covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlpkern.lm.plots.style import PALETTE, TICK_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

ASIDE = 7.0  # points between the end of a curve and its number
GAP = 1.15  # of the height of a number, from one to the next


def label_ends(axes: Axes, lines: Sequence[Line2D]) -> None:
    """Writes the last value of each of ``lines`` at its end, in its colour.

    Numbers that would cover each other move up or down, with a line to their curve. Where there is
    no room for all, the lowest are written. Fixes the layout of the figure.
    """
    from matplotlib.patheffects import Normal, Stroke

    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # fixes limits and layout, on which the places depend
    figure.set_layout_engine("none")
    lines = [line for line in lines if len(np.asarray(line.get_xydata()))]
    if not lines:
        return
    ends = np.array([np.asarray(line.get_xydata())[-1] for line in lines])  # (L, 2)
    pixels, back = axes.transData.transform(ends), axes.transData.inverted()
    scale = figure.dpi / 72
    height, width, aside = (size * scale for size in (GAP * TICK_SIZE, 4 * TICK_SIZE, ASIDE))
    frame = axes.get_window_extent()
    low, high = frame.y0 + height / 2, frame.y1 - height / 2
    halo = [Stroke(linewidth=3, foreground="white"), Normal()]  # over the curves of longer runs
    for column in _columns(pixels[:, 0], width):
        kept = sorted(column, key=lambda i: float(ends[i, 1]))[: 1 + int((high - low) // height)]
        for i, place in zip(kept, spread_out(pixels[kept, 1], height, low, high), strict=True):
            x, y = back.transform((pixels[i, 0] + aside, place))
            axes.text(x, y, f"{ends[i, 1]:.4f}", va="center", color=lines[i].get_color(),
                      fontsize=TICK_SIZE, zorder=5, path_effects=halo)  # fmt: skip
            if abs(place - pixels[i, 1]) > height / 2:
                axes.plot([ends[i, 0], x], [ends[i, 1], y], color=PALETTE["grey"], linewidth=0.6,
                          scalex=False, scaley=False)  # fmt: skip


def spread_out(heights: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """``heights`` (P,) moved as little as possible until they are ``gap`` apart, in low to high.

    They keep their order, equal ones that of their positions; all must fit.

    >>> spread_out(np.array([3.0, 3.0, 9.0]), 2.0, 0.0, 10.0)
    array([2., 4., 9.])
    """
    order = np.argsort(heights, kind="stable")
    touching: list[tuple[int, float]] = []  # groups: how many, and the height of the first
    for height in heights[order]:
        count, first = 1, float(height)
        while touching and first < touching[-1][1] + touching[-1][0] * gap:
            below, start = touching.pop()
            first = (below * start + count * (first - below * gap)) / (below + count)
            count += below
        touching.append((count, first))
    packed = np.array([first + k * gap for count, first in touching for k in range(count)])
    steps = gap * np.arange(len(packed))
    packed = np.maximum(np.minimum(packed, high - steps[::-1]), low + steps)
    spread = np.empty(len(packed))
    spread[order] = packed
    return spread


def _columns(at: np.ndarray, width: float) -> list[list[int]]:
    """The indices of ``at`` in groups whose neighbours are less than ``width`` apart."""
    groups: list[list[int]] = []
    for i in sorted(range(len(at)), key=lambda i: float(at[i])):
        if groups and at[i] - at[groups[-1][-1]] < width:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
