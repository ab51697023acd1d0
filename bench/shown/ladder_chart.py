"""Result -> PNG: the ladder stock -> ops -> run, steps per second on a logarithmic axis."""

from __future__ import annotations

from typing import Any

from bench.core.case import Unavailable
from bench.shown.ladder import LECTURE_SHAPE, rungs
from bench.shown.plot_frame import finished_png
from bench.shown.text import per_second, percent, seconds, times

STOCK_COLOR, OPS_COLOR, RUN_COLOR = "#999999", "#56B4E9", "#0072B2"  # Okabe and Ito


def ladder_png(result: dict[str, Any]) -> bytes:
    """A bar per rung that starts at the lecture's loop, so that its length is the speedup.

    Raises `Unavailable` without matplotlib or without the lecture's step in the result.
    """
    found = rungs(result)
    if not found:
        raise Unavailable("the lecture's training step was not measured")
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("matplotlib is not installed (pip install matplotlib)") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 1.7 + 0.5 * len(found)), dpi=110)
    base = found[0].per_second
    limit = _steps_of_one_core(result)
    top = max([rung.per_second for rung in found] + ([limit] if limit else []))
    for place, rung in enumerate(found):
        color = STOCK_COLOR if not rung.ours else OPS_COLOR if "ops" in rung.name else RUN_COLOR
        axes.barh(place, rung.per_second - base, left=base, color=color, height=0.62)
        text = f"{per_second(rung.per_second)} steps/s   {seconds(rung.median_s)}"
        text += f"   {times(rung.speedup)}" if place else ""
        if rung.ours and rung.fraction_of_peak is not None:
            text += f"   {percent(rung.fraction_of_peak)} of peak"
        axes.annotate(text, (rung.per_second, place), xytext=(7, 0), textcoords="offset points",
                      va="center", fontsize=9.5,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    axes.axvline(base, color="black", linewidth=1)
    if limit:
        axes.axvline(limit, color="#D55E00", linewidth=1, linestyle="--", zorder=0)
        axes.annotate("multiply-adds alone,\none core", (limit, 0), xytext=(5, 0), fontsize=8.5,
                      textcoords="offset points", va="center", color="#D55E00")  # fmt: skip
    axes.set_xscale("log")
    low = min(rung.per_second for rung in found)
    axes.set_xlim(0.85 * low, top * (top / low) ** 0.62)  # room for the text
    ticks = [n * 10**e for e in range(1, 8) for n in (1, 2, 5)]
    ticks = [tick for tick in ticks if 0.85 * low <= tick <= 1.5 * top]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(found)), [rung.name for rung in found], fontsize=10)
    axes.margins(y=0.02)
    machine = result["machine"]
    title = (
        f"Training steps per second of the lecture's model ({LECTURE_SHAPE}, SGD), update included"
    )
    footer = (
        f"{machine['cpu']}, {machine['threads']} threads, torch {result['versions']['torch']}, "
        f"{result['date'][:10]}; two models: steps of both together"
    )
    return finished_png(figure, axes, title, footer)


def _steps_of_one_core(result: dict[str, Any]) -> float | None:
    """How many steps a second the matrix products of a core would allow."""
    if result["limits"] is None:
        return None
    case = next(case for case in result["cases"] if case["shape"] == LECTURE_SHAPE)
    return float(result["limits"]["peak"]["float32, 1 thread"] / case["cost"]["flops"])
