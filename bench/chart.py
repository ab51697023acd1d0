"""Result -> PNG: how many times faster than the best stock provider each case is.

python bench/chart.py RESULT.json CHART.png
python bench/chart.py RESULT.json LADDER.png --ladder    that of the lecture's training step
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.core.case import Unavailable
from bench.report import load, summary
from bench.shown.ladder_chart import ladder_png
from bench.shown.plot_frame import finished_png
from bench.shown.text import machine_name, seconds, times

FASTER, SLOWER, AGAINST_KEPT = "#0072B2", "#D55E00", "#000000"  # Okabe and Ito: safe for all eyes


def chart_png(result: dict[str, Any]) -> bytes:
    """A horizontal bar per case on a logarithmic axis; a slower case gets its bar too.

    Raises `Unavailable` without matplotlib or without any ratio to draw.
    """
    try:
        import matplotlib
    except ImportError:
        raise Unavailable("matplotlib is not installed (pip install matplotlib)") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cases = [case for case in result["cases"] if case["ratio"] is not None]
    if not cases:
        raise Unavailable("no case has a ratio")
    ratios = [case["ratio"] for case in cases]
    kept = [case["ratio_keeps_pages"] for case in cases]
    low = min([0.5, *(0.8 * r for r in ratios), *(0.8 * k for k in kept if k)])
    high = max([2.0, *ratios, *(k for k in kept if k)])

    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.42 * len(cases)), dpi=110)
    places = range(len(cases))
    colors = [FASTER if r >= 1 else SLOWER for r in ratios]
    axes.barh(places, [r - 1 for r in ratios], left=1, color=colors, height=0.62)
    axes.axvline(1, color="black", linewidth=1)
    marked = [(place, k) for place, k in enumerate(kept) if k is not None]
    if marked:
        axes.plot(
            [k for _, k in marked],
            [place for place, _ in marked],
            "D",
            markersize=6,
            color=AGAINST_KEPT,
            markerfacecolor="white",
            label="against stock under a malloc that keeps its pages",
        )
        height = axes.get_position().height * figure.get_figheight()  # inches
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.55 / height), frameon=False,
                    fontsize=9)  # fmt: skip
    for place, case in enumerate(cases):
        figures = summary(case)
        text = f"{figures['ratio']}   {figures['stock_time']} → {figures['time']}"
        if case["baseline"]:
            text += f"   ({case['baseline']}: {times(case['ratio_baseline'])})"
        right = max(case["ratio"], case["ratio_keeps_pages"] or 0, 1.0)
        axes.annotate(text, (right, place), xytext=(9, 0), textcoords="offset points",
                      va="center", fontsize=9)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(low, high * (high / low) ** 0.42)  # room for the text right of the longest bar
    ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if low <= t <= 1.1 * high]
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks(places, [_label(case) for case in cases], fontsize=9)
    axes.margins(y=0.01)
    title = "Best of stock PyTorch / mlpkern (right of 1: mlpkern is faster)"
    footer = (
        f"{machine_name(result)}, torch {result['versions']['torch']}, "
        f"{result['date'][:10]}, {seconds(result['settings']['budget_s'])} of timing a case"
    )
    return finished_png(figure, axes, title, footer)


def _label(case: dict[str, Any]) -> str:
    dtype = "" if case["dtype"] == "float32" else f"  {case['dtype']}"
    return f"{case['op']}  {case['shape'].replace('->', '→').replace('x', '×')}{dtype}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draws a result of bench/run.py.")
    parser.add_argument("result", type=Path, help="JSON file that bench/run.py wrote")
    parser.add_argument("png", type=Path, help="picture to write")
    parser.add_argument("--ladder", action="store_true", help="steps per second of one model")
    options = parser.parse_args(arguments)
    try:
        picture = (ladder_png if options.ladder else chart_png)(load(options.result))
    except Unavailable as error:
        raise SystemExit(f"no chart: {error}") from None
    options.png.write_bytes(picture)


if __name__ == "__main__":
    main()
