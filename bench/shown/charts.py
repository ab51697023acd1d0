"""Result -> PNG: the ratio of every case, and the ladder stock -> ops -> run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from bench.core.case import Unavailable
from bench.shown.figures import row_of, time_of
from bench.shown.ladder import LECTURE_SHAPE, rungs
from bench.shown.text import (
    Result,
    machine_name,
    per_second,
    percent,
    seconds,
    shape_text,
    times,
)

# The colors of Okabe and Ito, which color-blind readers can tell apart
BLUE, LIGHT_BLUE, VERMILION, GRAY = "#0072B2", "#56B4E9", "#D55E00", "#999999"


def chart_png(result: Result) -> bytes:
    """A bar for each case: how many times faster than the best stock provider it is.

    A slower case gets its bar too. Raises `Unavailable` without matplotlib or without any ratio.
    """
    cases = [case for case in result["cases"] if case["ratio"] is not None]
    if not cases:
        raise Unavailable("no case has a ratio")
    figure, axes = _subplots(1.6 + 0.42 * len(cases))
    ratios = [case["ratio"] for case in cases]
    kept = [case["ratio_keeps_pages"] for case in cases]
    low = min([0.5, *(0.8 * r for r in ratios), *(0.8 * k for k in kept if k)])
    high = max([2.0, *ratios, *(k for k in kept if k)])

    colors = [BLUE if r >= 1 else VERMILION for r in ratios]
    axes.barh(range(len(cases)), [r - 1 for r in ratios], left=1, color=colors, height=0.62)
    axes.axvline(1, color="black", linewidth=1)
    marked = [(place, k) for place, k in enumerate(kept) if k is not None]
    if marked:
        axes.plot([k for _, k in marked], [place for place, _ in marked], "D", markersize=6,
                  color="black", markerfacecolor="white",
                  label="against stock under a malloc that keeps its pages")  # fmt: skip
        height = axes.get_position().height * figure.get_figheight()  # inches
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.55 / height), frameon=False,
                    fontsize=9)  # fmt: skip
    for place, case in enumerate(cases):
        text = f"{times(case['ratio'])}   {time_of(row_of(case, 'best_stock'))} → "
        text += time_of(row_of(case, "ours"))
        if case["baseline"]:
            text += f"   ({case['baseline']}: {times(case['ratio_baseline'])})"
        right = max(case["ratio"], case["ratio_keeps_pages"] or 0, 1.0)
        axes.annotate(text, (right, place), xytext=(9, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
    axes.set_xlim(low, high * (high / low) ** 0.42)  # room for the text right of the longest bar
    ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if low <= t <= 1.1 * high]
    _scale(axes, ticks, [f"{t:g}x" for t in ticks], [_label(case) for case in cases], 9)
    axes.margins(y=0.01)
    title = "Best of stock PyTorch / mlpkern (right of 1: mlpkern is faster)"
    footer = (
        f"{machine_name(result)}, torch {result['versions']['torch']}, "
        f"{result['date'][:10]}, {seconds(result['settings']['budget_s'])} of timing a case"
    )
    return _png(figure, axes, title, footer)


def _label(case: Result) -> str:
    dtype = "" if case["dtype"] == "float32" else f"  {case['dtype']}"
    return f"{case['op']}  {shape_text(case['shape'])}{dtype}"


def ladder_png(result: Result) -> bytes:
    """A bar for each rung that starts at the lecture's loop, so that its length is the speedup.

    Raises `Unavailable` without matplotlib or without the lecture's step in the result.
    """
    found = rungs(result)
    if not found:
        raise Unavailable("the lecture's training step was not measured")
    figure, axes = _subplots(1.7 + 0.5 * len(found))
    base = found[0].per_second
    limit = _steps_of_one_core(result)
    top = max([rung.per_second for rung in found] + ([limit] if limit else []))
    for place, rung in enumerate(found):
        color = GRAY if not rung.ours else LIGHT_BLUE if "ops" in rung.name else BLUE
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
        axes.axvline(limit, color=VERMILION, linewidth=1, linestyle="--", zorder=0)
        axes.annotate("multiply-adds alone,\none core", (limit, 0), xytext=(5, 0), fontsize=8.5,
                      textcoords="offset points", va="center", color=VERMILION)  # fmt: skip
    low = min(rung.per_second for rung in found)
    axes.set_xlim(0.85 * low, top * (top / low) ** 0.62)  # room for the text
    ticks = [n * 10**e for e in range(1, 8) for n in (1, 2, 5)]
    ticks = [tick for tick in ticks if 0.85 * low <= tick <= 1.5 * top]
    _scale(axes, ticks, [f"{tick:,}" for tick in ticks], [rung.name for rung in found], 10)
    axes.margins(y=0.02)
    title = (
        f"Training steps per second of the lecture's model ({LECTURE_SHAPE}, SGD), update included"
    )
    footer = (
        f"{machine_name(result)}, torch {result['versions']['torch']}, "
        f"{result['date'][:10]}; two models: steps of both together"
    )
    return _png(figure, axes, title, footer)


def _steps_of_one_core(result: Result) -> float | None:
    """How many steps a second the matrix products of a core would allow."""
    if result["limits"] is None:
        return None
    case = next(case for case in result["cases"] if case["shape"] == LECTURE_SHAPE)
    return float(result["limits"]["peak"]["float32, 1 thread"] / case["cost"]["flops"])


def _subplots(height: float) -> tuple[Any, Any]:
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("matplotlib is not installed (pip install matplotlib)") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(11, height), dpi=110)


def _scale(
    axes: Any, ticks: Sequence[float], shown: list[str], names: list[str], size: int
) -> None:
    """A logarithmic axis below, the names of the bars on the left."""
    limits = axes.get_xlim()
    axes.set_xscale("log")
    axes.set_xlim(limits)
    axes.set_xticks(ticks, shown)
    axes.minorticks_off()
    axes.set_yticks(range(len(names)), names, fontsize=size)


def _png(figure: Any, axes: Any, title: str, footer: str) -> bytes:
    """The finished picture of horizontal bars; closes `figure`."""
    from matplotlib import pyplot as plt

    axes.invert_yaxis()
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, fontsize=11, loc="left", pad=10)
    axes.set_xlabel(footer, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
