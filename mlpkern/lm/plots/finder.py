"""The sweep of a learning-rate finder, and the trials by which a rate was found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many.found_lr import FoundLR
from mlpkern.lm.many.lr_finder import LRCurve
from mlpkern.lm.plots.style import PALETTE, below, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 0.2  # nats of the trials: beyond are rates that nobody wants


def finder_plot(curve: LRCurve, found: FoundLR | None = None) -> Figure:
    """Loss over the learning rate (logarithmic): the smoothed median of the seeds, the band with
    80 % of them at each step, and vertical lines at the steepest descent and the valley.

    With what `find_lr` has ``found``, a second graph below: the dev losses of the trials, above the
    lowest of their round, and the recommended rate in both.
    """
    if not len(curve.smoothed):
        raise ConfigError("finder_plot: the first loss is not finite already")
    seeds = len(curve.losses)
    rates = curve.lrs[: len(curve.smoothed)]
    band = curve.band()
    figure = new_figure(8, 8 if found else 5)
    axes, *rest = figure.subplots(2 if found else 1, sharex=True, squeeze=False)[:, 0]
    styled(axes, title="Loss while the learning rate grows", xlabel="learning rate",
           ylabel="loss of the batch (nats)")  # fmt: skip
    if seeds > 1:
        axes.fill_between(rates, *band, color=PALETTE["sky"], alpha=0.35, linewidth=0,
                          label=f"10 to 90 % of {seeds} seeds")  # fmt: skip
    else:
        axes.plot(rates, curve.losses[0][: len(rates)], color=PALETTE["sky"], linewidth=0.6,
                  alpha=0.8, label="each step")  # fmt: skip
    axes.plot(rates, curve.smoothed, color=PALETTE["blue"], linewidth=2,
              label="median, smoothed" if seeds > 1 else "smoothed")  # fmt: skip
    for name, rate, color, dash in (
        ("steepest descent", curve.steepest, PALETTE["green"], "-."),
        ("valley", curve.valley, PALETTE["vermillion"], "--"),
        ("recommended", found and found.recommended, PALETTE["black"], ":"),
    ):
        if rate is not None:
            axes.axvline(rate, color=color, linewidth=1.6, linestyle=dash,
                         label=f"{name} {rate:.3g}")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(curve.lrs[0].item(), curve.lrs[-1].item())
    low, start = curve.smoothed.min().item(), curve.smoothed[: curve.window].max().item()
    low, start = min(low, band[0].min().item()), max(start, band[1][: curve.window].max().item())
    room = 0.08 * (start - low) + 1e-3
    axes.set_ylim(low - room, start + 4 * room)
    if found:
        _draw_trials(rest[0], found)
        axes.set_xlabel("")
    below(figure, columns=3 if found else 4)
    return figure


def _draw_trials(axes: Axes, found: FoundLR) -> None:
    styled(axes, title="Trials: the run, shortened, its schedule at different rates",
           xlabel="learning rate", ylabel="dev loss above the round's lowest (nats)")  # fmt: skip
    highest = 0.0
    for trials, color in zip(found.trials, ("orange", "purple", "black"), strict=False):
        lowest = min(trials.dev.values())
        above = [loss - lowest for loss in trials.dev.values()]
        highest = max(highest, *above)
        axes.plot(list(trials.dev), above, "o-", color=PALETTE[color], markersize=4,
                  label=f"{trials.steps} steps")  # fmt: skip
    axes.axvline(found.recommended, color=PALETTE["black"], linewidth=1.6, linestyle=":")
    top = min(SHOWN, 1.1 * highest + 1e-3)
    axes.set_ylim(-0.05 * top, top)
