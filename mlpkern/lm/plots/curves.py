"""Curves over the steps of training: losses of one or several runs, and the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mlpkern.lm.analysis.ngram import ngram_name
from mlpkern.lm.analysis.report import FEW
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.plots.end_labels import label_ends
from mlpkern.lm.plots.style import LINES, PALETTE, below, new_figure, plain, styled, titled
from mlpkern.lm.saved.log import LogRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from mlpkern.lm.analysis.report import Group, Report

LR_POINTS = 2_000
BASELINE_DASHES = ("--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))


def loss_plot(
    rows: Sequence[LogRow], baselines: Mapping[str, float] | None = None, *, title: str = ""
) -> Figure:
    """Train and dev loss of a log over the steps, with a horizontal line for each of ``baselines``.

    Args:
        baselines: name -> dev loss, for example of n-grams.
        title: a line above the picture, such as `run_caption`.

    High losses in the first twentieth of the run lie outside of the picture.
    """
    figure = new_figure(8, 5)
    _draw_losses(figure.add_subplot(), rows, baselines or {})
    below(figure, columns=5)
    titled(figure, title)
    return figure


def report_plot(report: Report, *, title: str = "") -> Figure:
    """`loss_plot` of a report, and beside it the dev loss by position in the word: in each bar its
    rows, at its end the standard error; bars of less than 100 rows are pale and hatched.

    Args:
        title: a line above the picture, such as `run_caption`.
    """
    figure = new_figure(11, 5.2)
    curves, places = figure.subplots(1, 2, width_ratios=(3, 2))
    baselines = {ngram_name(n): loss for n, loss in report.ngrams.items()}
    _draw_losses(curves, report.rows, baselines)
    styled(places, title="Dev loss by place of the target (in the bars: rows)",
           xlabel="place, from the beginning of the word or line", ylabel="")  # fmt: skip
    _draw_groups(places, report.positions)
    places.axhline(report.splits["dev"].loss, color=PALETTE["vermillion"], linewidth=1.3,
                   label="dev, all places")  # fmt: skip
    places.grid(axis="x", visible=False)
    below(figure, columns=7)
    titled(figure, title)
    return figure


def comparison_plot(logs: Mapping[str, Sequence[LogRow]], *, title: str = "") -> Figure:
    """The losses of several runs, by name: over the steps, and over the seconds of training.

    Each run has a colour and dash; dev losses have marks, train losses are thin. The last dev loss
    of a run stands at the end of its curve, or beside it where several end close together; of more
    runs than there is room for, those of the lowest.

    Args:
        title: what is compared, above both panels.
    """
    if not any(logs.values()):
        raise ConfigError("no log has rows yet")
    figure = new_figure(11, 5.2)
    panels = figure.subplots(1, 2, sharey=True)
    ends = []
    titled(figure, title)
    for axes, key in zip(panels, ("step", "seconds"), strict=True):
        label = "step" if key == "step" else "seconds of training"
        styled(axes, title=f"Loss over the {key}s" if key == "step" else "Loss over the time",
               xlabel=label, ylabel="loss (nats)" if key == "step" else "")  # fmt: skip
        drawn: list[Line2D] = []  # the dev losses of each run
        for i, (name, rows) in enumerate(logs.items()):
            color, dash = LINES[i % len(LINES)]
            at = [getattr(row, key) for row in rows]
            axes.plot(at, [row.train_loss for row in rows], color=color, linestyle=dash,
                      linewidth=0.7, alpha=0.7)  # fmt: skip
            dev = [(x, row.dev_loss) for x, row in zip(at, rows, strict=True)
                   if row.dev_loss is not None]  # fmt: skip
            drawn += axes.plot(
                [x for x, _ in dev], [y for _, y in dev], color=color, linestyle=dash,
                linewidth=1.8, marker="osD^v"[i % 5], markersize=4.5, label=plain(name),
            )  # fmt: skip
        last = max(getattr(row, key) for rows in logs.values() for row in rows)
        ends.append((axes, drawn))
        axes.set_xlim(0, (last or 1) * 1.14)  # room for the numbers at the ends
    axes.plot([], [], color=PALETTE["grey"], linewidth=0.7, label="thin: train (batches)")
    _cut_the_beginning(panels[0], list(logs.values()), ())
    _steps_axis(panels[0])
    below(figure, columns=max(1, min(4, 90 // (8 + max(map(len, logs))))))
    for axes, drawn in ends:
        label_ends(axes, drawn)
    return figure


def lr_plot(config: TrainConfig, *, title: str = "") -> Figure:
    """The learning rate of every step of a run with ``config``; ``title``: a line above it."""
    if config.steps < 1:
        raise ConfigError("the run has no steps")
    at = np.unique(np.linspace(0, config.steps - 1, LR_POINTS).round().astype(np.int64))
    rates = [config.learning_rates(int(step), 1).item() for step in at]
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    styled(axes, title="Learning rate over the steps", xlabel="step", ylabel="learning rate")
    titled(figure, title)
    axes.plot(at, rates, color=PALETTE["blue"], linewidth=1.8, drawstyle="steps-post")
    if min(rates) > 0 and config.schedule == "staged" and not config.warmup:
        axes.set_yscale("log")
        if min(rates) == max(rates):
            axes.set_ylim(rates[0] / 3, rates[0] * 3)
        _name_the_rates(axes, sorted(set(rates)))
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
    _steps_axis(axes)
    return figure


def _name_the_rates(axes: Axes, rates: Sequence[float]) -> None:
    """Ticks at the rates of a logarithmic axis, where they are few and apart."""
    if len(rates) <= 6 and all(high > 1.3 * low for low, high in pairwise(rates)):
        axes.set_yticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()


def _draw_groups(axes: Axes, groups: Sequence[Group]) -> None:
    """A bar for each group."""
    styles: dict[bool, dict[str, Any]] = {
        False: {"color": PALETTE["sky"], "edgecolor": PALETTE["blue"]},
        True: {"color": "white", "edgecolor": PALETTE["sky"], "hatch": "///",
               "label": f"less than {FEW} rows"},
    }  # fmt: skip
    for few, style in styles.items():
        kept = [(i, group) for i, group in enumerate(groups) if group.few is few]
        if kept:
            axes.bar([i for i, _ in kept], [group.loss for _, group in kept], linewidth=0.8,
                     yerr=[group.error for _, group in kept],
                     error_kw={"linewidth": 0.8, "capsize": 1.5}, **style)  # fmt: skip
    for i, group in enumerate(groups):
        axes.annotate(f"{group.rows:,}", (i, 0), xytext=(0, 3), textcoords="offset points",
                      rotation=90, ha="center", va="bottom", fontsize=8,
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7,
                            "pad": 0.5})  # fmt: skip
    axes.set_xticks(range(len(groups)), [group.label for group in groups])


def _draw_losses(axes: Axes, rows: Sequence[LogRow], baselines: Mapping[str, float]) -> None:
    if not rows:
        raise ConfigError("the log has no rows yet")
    styled(axes, title="Loss over the steps", xlabel="step", ylabel="loss (nats)")
    steps = [row.step for row in rows]
    dev = [(row.step, row.dev_loss) for row in rows if row.dev_loss is not None]
    axes.plot(steps, [row.train_loss for row in rows], color=PALETTE["blue"], linewidth=1.4,
              marker=_marker(len(rows), "."), label="train (batches)")  # fmt: skip
    if dev:
        axes.plot(*zip(*dev, strict=True), color=PALETTE["vermillion"], linewidth=1.6,
                  marker=_marker(len(dev), "o"), markersize=5, label="dev")  # fmt: skip
    for (name, loss), dash in zip(baselines.items(), BASELINE_DASHES, strict=False):
        axes.axhline(loss, color=PALETTE["grey"], linewidth=1.3, linestyle=dash,
                     label=f"{name} {loss:.4f}")  # fmt: skip
    _cut_the_beginning(axes, [rows], baselines.values())
    _steps_axis(axes)


def _cut_the_beginning(
    axes: Axes, logs: Sequence[Sequence[LogRow]], baselines: Iterable[float]
) -> None:
    """Sets the limits to the range of the curves after their first twentieth."""
    losses: list[float] = list(baselines)
    for rows in logs:
        if not rows:
            continue
        start = rows[-1].step / 20
        kept = [row for row in rows if row.step >= start]
        losses += [row.train_loss for row in kept]
        losses += [row.dev_loss for row in rows if row.dev_loss is not None]
    room = 0.06 * (max(losses) - min(losses)) + 1e-3
    axes.set_ylim(min(losses) - room, max(losses) + room)


def _steps_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=(1, 2, 2.5, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def _marker(count: int, marker: str) -> str:
    """``marker``, or none if there are too many points to tell apart."""
    return marker if count <= 60 else ""
