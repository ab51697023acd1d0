"""Result -> PNG: the ratio of every case, and the ladder stock -> ops -> run."""

from __future__ import annotations

import io
from typing import Any

from bench.core.case import Unavailable
from bench.shown.figures import row_of, time_of
from bench.shown.ladder import LECTURE_SHAPE, TWO_MODELS, Rung, rungs
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
    """A bar for each case: how many times faster than the best rival it is.

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
        text = f"{times(case['ratio'])}   {time_of(row_of(case, 'best_rival'))} → "
        text += time_of(row_of(case, "ours"))
        if case["baseline"]:
            text += f"   ({case['baseline']}: {times(case['ratio_baseline'])})"
        right = max(case["ratio"], case["ratio_keeps_pages"] or 0, 1.0)
        axes.annotate(text, (right, place), xytext=(9, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
    axes.set_xlim(low, high * (high / low) ** 0.42)  # room for the text right of the longest bar
    ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if low <= t <= 1.1 * high]
    limits = axes.get_xlim()
    axes.set_xscale("log")
    axes.set_xlim(limits)
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(cases)), [_label(case) for case in cases], fontsize=9)
    axes.margins(y=0.01)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    title = "Best of stock PyTorch and JAX / mlpkern (right of 1: mlpkern is faster)"
    budget = f"{seconds(result['settings']['budget_s'])} of timing a case"
    _finish(axes, title, f"{_origin(result)}, {budget}")
    return _png(figure)


def _label(case: Result) -> str:
    dtype = "" if case["dtype"] == "float32" else f"  {case['dtype']}"
    return f"{case['op']}  {shape_text(case['shape'])}{dtype}"


def ladder_png(result: Result) -> bytes:
    """A bar for each rung, as long as its steps per second, with its speedup over the first.

    Raises `Unavailable` without matplotlib or without the lecture's step in the result.
    """
    return _png(ladder_figure(result))


def ladder_figure(result: Result) -> Any:
    """The figure of `ladder_png`."""
    found = rungs(result)
    if not found:
        raise Unavailable("the lecture's training step was not measured")
    figure, axes = _subplots(1.7 + 0.5 * len(found))
    places = [place + 0.5 * rung.two_models for place, rung in enumerate(found)]
    for place, rung in zip(places, found, strict=True):
        color = GRAY if not rung.ours else LIGHT_BLUE if "ops" in rung.name else BLUE
        axes.barh(place, rung.per_second, color=color, height=0.66)
        text = f"{per_second(rung.per_second)} steps/s, {seconds(rung.median_s)} a step"
        if rung.ours and rung.fraction_of_peak is not None:
            text += f", {percent(rung.fraction_of_peak)} of peak"
        speedup = axes.annotate(
            times(rung.speedup), (rung.per_second, place), xytext=(7, 0), va="center",
            textcoords="offset points", fontsize=11, weight="bold",
        )  # fmt: skip
        axes.annotate(text, (1, 0.5), xycoords=speedup, xytext=(8, 0), va="center",
                      textcoords="offset points", fontsize=9.5)  # fmt: skip
    axes.set_xlim(0, 1.8 * max(rung.per_second for rung in found))  # room for the text
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.1 * found[-1].per_second])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_yticks(places, [_rung_label(rung) for rung in found], fontsize=10)
    axes.margins(y=0.02)
    _finish(
        axes,
        "Training steps per second of the lecture's model, update included: longer is faster",
        f"steps per second, two models: of both together; {LECTURE_SHAPE}, SGD\n{_origin(result)}",
    )
    return figure


def _rung_label(rung: Rung) -> str:
    """The name of a rung for readers who have not seen the table."""
    name = rung.name.removeprefix(TWO_MODELS)
    if rung.ours:
        name = {"ops": "mlpkern, fused ops", "run": "mlpkern, a run in one call"}[name]
    else:
        name = name.replace("stock, ", "stock PyTorch, ", 1)
    return f"two models: {name}" if rung.two_models else name


def _origin(result: Result) -> str:
    return f"{machine_name(result)}, torch {result['versions']['torch']}, {result['date'][:10]}"


def _subplots(height: float) -> tuple[Any, Any]:
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("matplotlib is not installed (pip install matplotlib)") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(11, height), dpi=110)


def _finish(axes: Any, title: str, footer: str) -> None:
    """Horizontal bars from the top, a plain frame, the title and what is below the axis."""
    axes.invert_yaxis()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(title, fontsize=11, loc="left", pad=10)
    axes.set_xlabel(footer, fontsize=8)


def _png(figure: Any) -> bytes:
    """The bytes of the picture; closes `figure`."""
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    plt.close(figure)
    return buffer.getvalue()
