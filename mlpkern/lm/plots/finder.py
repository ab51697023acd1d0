"""The curve of a learning-rate finder: the median, a band over the seeds, points on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many.lr_finder import LRCurve
from mlpkern.lm.plots.style import PALETTE, below, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def finder_plot(curve: LRCurve, recommended: float | None = None) -> Figure:
    """Loss over the learning rate (logarithmic): the smoothed median of the seeds, the band with
    80 % of them at each step, and vertical lines at the steepest descent, the valley, and a rate
    that is ``recommended`` (`find_lr`)."""
    if not len(curve.smoothed):
        raise ConfigError("finder_plot: the first loss is not finite already")
    seeds = len(curve.losses)
    rates = curve.lrs[: len(curve.smoothed)]
    band = curve.band()
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
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
        ("recommended", recommended, PALETTE["black"], "-"),
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
    below(figure, columns=3 if recommended else 4)
    return figure
