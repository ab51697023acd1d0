"""Pictures of a sweep: the dev losses of its trials, and their settings."""

from __future__ import annotations

import math
from itertools import accumulate, cycle
from textwrap import fill
from typing import TYPE_CHECKING, Any

from mlpkern.lm.model.config import SETTINGS
from mlpkern.lm.plots.style import (
    GRID,
    LABEL_SIZE,
    PALETTE,
    TICK_SIZE,
    TITLE_SIZE,
    below,
    new_figure,
    plain,
    shares_colormap,
    styled,
)
from mlpkern.lm.search.space import Choice, Range, SearchSpace
from mlpkern.lm.search.study import last_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

TITLE_WIDTH = 88  # characters
# the marks of the rungs, from the first on
RUNGS = [(PALETTE["grey"], "x"), (PALETTE["orange"], "+"), (PALETTE["vermillion"], "1")]


def history_plot(trials: list[FrozenTrial], space: SearchSpace, name: str = "") -> Figure:
    """The dev loss of each trial by its number: trained to the end, or pruned at one of the rungs,
    and the best so far. The worst tenth of the trials may lie above the axis, and is marked there.
    """
    figure = new_figure(8, 5)
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    searched = ", ".join(map(_label, space.entries))
    title = plain(f"{_sweep(name)}: dev loss of {len(trials)} trials, searching {searched}")
    styled(axes, title=fill(title, TITLE_WIDTH), xlabel="trial", ylabel="dev loss (nats)")
    low, high = _limits([last_loss(t) for t in trials])
    pruned: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if trial.state.name == "PRUNED":
            pruned.setdefault(max(trial.intermediate_values), []).append(trial)
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    for (step, those), (color, marker) in zip(sorted(pruned.items()), cycle(RUNGS), strict=False):
        label = f"pruned at step {step:,}: {len(those)}"
        _scatter(axes, those, high, marker=marker, s=26, linewidth=1.2, color=color, label=label)
    if done:
        label = f"trained to the end: {len(done)}"
        _scatter(axes, done, high, marker="o", s=34, color=PALETTE["blue"], label=label)
        bests = list(accumulate(map(last_loss, done), min))
        axes.step([*(t.number for t in done), trials[-1].number], [*bests, bests[-1]],
                  where="post", color=PALETTE["green"], linewidth=1.6,
                  label=f"best so far, at last {bests[-1]:.4f}")  # fmt: skip
    if above := [t.number for t in trials if last_loss(t) > high]:
        axes.scatter(above, [high] * len(above), marker="^", s=30, color=PALETTE["black"],
                     clip_on=False, label=f"above the axis: {len(above)}")  # fmt: skip
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    below(figure, columns=3)
    return figure


def parallel_plot(trials: list[FrozenTrial], space: SearchSpace, name: str = "") -> Figure:
    """Every trial as a line across an axis for each setting and one for the dev loss. Finished
    trials are darker the better they are; pruned ones are grey and thin. Without seeds."""
    names = [name for name in space.entries if name != "seed"]
    columns = len(names) + 1
    figure = new_figure(max(7.0, 1.35 * columns), 5)
    axes = figure.add_subplot()
    axes.set_title(plain(f"{_sweep(name)}: settings and dev loss of {len(trials)} trials"),
                   fontsize=TITLE_SIZE, loc="left", pad=34)  # fmt: skip
    low, high = _limits([last_loss(t) for t in trials])
    scale = high - low
    colors = shares_colormap()
    ended = sorted(last_loss(t) for t in trials if t.state.name == "COMPLETE")
    labels_left = {True: "trained to the end, the darker the better", False: "pruned at a rung"}
    for trial in sorted(trials, key=last_loss, reverse=True):  # the best on top
        loss, finished = last_loss(trial), trial.state.name == "COMPLETE"
        heights = [_height(space.entries[n], trial.params[n]) for n in names]
        worse = (loss - ended[0]) / max(ended[-1] - ended[0], 1e-9) if finished else 0.0
        axes.plot(
            range(columns), [*heights, min(1.0, (loss - low) / scale)],
            color=colors(1.0 - 0.55 * worse) if finished else PALETTE["grey"],
            linewidth=1.8 if finished else 0.6, alpha=0.9 if finished else 0.45,
            zorder=2 if finished else 1, label=labels_left.pop(finished, None),
        )  # fmt: skip
    for x, name in enumerate(names):
        for height, text in _ticks(space.entries[name]):
            _tick(axes, x, height, text)
    for share in (0.0, 0.5, 1.0):
        _tick(axes, columns - 1, share, f"{low + share * scale:.3f}")
    axes.vlines(range(columns), 0, 1, color=PALETTE["black"], linewidth=0.9, zorder=3)
    labels = [*map(_label, names), "dev loss"]
    axes.set_xticks(range(columns), labels, fontsize=LABEL_SIZE)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.35, columns - 0.45)
    axes.set_ylim(-0.04, 1.04)
    for side in axes.spines.values():
        side.set_visible(False)
    below(figure, columns=2)
    return figure


def _sweep(name: str) -> str:
    return f"Sweep {name}" if name else "Sweep"


def _label(name: str) -> str:
    return SETTINGS[name].label or name.replace("_", " ")


def _scatter(axes: Any, trials: list[FrozenTrial], high: float, **options: Any) -> None:
    """The points of ``trials`` up to ``high``."""
    shown = [trial for trial in trials if last_loss(trial) <= high]
    axes.scatter([t.number for t in shown], [last_loss(t) for t in shown], **options)


def _limits(losses: list[float]) -> tuple[float, float]:
    """The lowest loss and the 90 % quantile, with some room."""
    ranked = sorted(losses)
    low, high = ranked[0], ranked[min(len(ranked) - 1, math.ceil(0.9 * len(ranked)) - 1)]
    room = max(high - low, 1e-3, 1e-6 * abs(high))  # the loss of a diverged trial may be huge
    return low - 0.05 * room, high + 0.05 * room


def _height(entry: Choice | Range, value: Any) -> float:
    """The position of ``value`` on the axis of its setting, 0 to 1."""
    if isinstance(entry, Choice):
        return entry.values.index(value) / max(1, len(entry.values) - 1)
    low, high = float(entry.low), float(entry.high)
    if entry.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _ticks(entry: Choice | Range) -> list[tuple[float, str]]:
    if isinstance(entry, Choice):
        return [(_height(entry, value), str(value)) for value in entry.values]
    middle = math.sqrt(entry.low * entry.high) if entry.log else (entry.low + entry.high) / 2
    return [(_height(entry, v), f"{v:.2g}") for v in (entry.low, middle, entry.high)]


def _tick(axes: Any, x: float, height: float, text: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": GRID, "alpha": 0.9}
    axes.text(x, height, text, fontsize=TICK_SIZE, ha="center", va="center", zorder=4, bbox=box)
