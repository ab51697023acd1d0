"""The ladder stock -> ops -> run: the ways of taking one step of the lecture's model, side by side.

Rungs are rows of a result, none measured again: the lecture's loop and the foreach update at their
best number of threads, the fastest of stock if it is another one, then `ops` and `run` as a user
gets them. Two more are for two models at once, per step of either: the fastest way of stock, `run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.shown.text import per_second, percent, seconds, times

Result = dict[str, Any]
STOCK = "stock"
LECTURE_SHAPE = "V=27 T=3 D=10 H=200 N=32"
TWO_MODELS_SHAPE = f"{LECTURE_SHAPE}, 2 models"


@dataclass(frozen=True)
class Rung:
    """A row of the ladder. `speedup` is against the first rung."""

    name: str
    ours: bool
    median_s: float
    speedup: float
    fraction_of_peak: float | None  # of the matrix products of the cores it works on

    @property
    def per_second(self) -> float:
        return 1 / self.median_s


def rungs(result: Result) -> list[Rung]:
    """From the slowest way to `run`; empty where the lecture's step was not measured."""
    rows = _picked(result, LECTURE_SHAPE, ("lecture loop", "foreach update", ""), ("ops", "run"))
    if not rows or rows[0][1]["kind"] != STOCK:
        return []
    rows += _picked(result, TWO_MODELS_SHAPE, ("",), ("run",), prefix="two models: ")
    base = rows[0][1]["median_s"]
    return [
        Rung(
            name,
            row["kind"] != STOCK,
            row["median_s"],
            base / row["median_s"],
            row.get("fraction_of_peak"),
        )
        for name, row in rows
    ]


def _picked(
    result: Result, shape: str, stock: tuple[str, ...], ours: tuple[str, ...], prefix: str = ""
) -> list[tuple[str, Result]]:
    """The fastest timed stock row whose name starts with each of `stock`; the rows named `ours`."""
    case = next((c for c in result["cases"] if c["shape"] == shape), {"rows": []})
    timed = [row for row in case["rows"] if "median_s" in row]
    found: list[Result] = []
    for name in stock:
        rows = [r for r in timed if r["kind"] == STOCK and r["provider"].startswith(name)]
        if rows and (best := min(rows, key=lambda row: row["median_s"])) not in found:
            found.append(best)
    found += [row for name in ours for row in timed if row["provider"] == name]
    return [(prefix + _said(row), row) for row in found]


def _said(row: Result) -> str:
    name: str = row["provider"]
    return f"stock, {name}" if row["kind"] == STOCK else name


def ladder_lines(result: Result) -> list[str]:
    """The ladder on the terminal."""
    found = rungs(result)
    if not found:
        return []
    lines = [
        "",
        f"a step of the lecture's model, {LECTURE_SHAPE}, per model",
        f"  {'':56}{'time':>12}{'steps/s':>12}{'of peak':>10}{'speedup':>12}",
    ]
    return lines + [
        f"  {rung.name:56}{seconds(rung.median_s):>12}{per_second(rung.per_second):>12}"
        f"{percent(rung.fraction_of_peak):>10}{times(rung.speedup):>12}"
        for rung in found
    ]


def ladder_markdown(result: Result) -> list[str]:
    """The ladder as a table of the README."""
    found = rungs(result)
    if not found:
        return []
    lines = [
        f"| step of the lecture's model, {LECTURE_SHAPE} | time | steps/s | of peak | speedup |",
        "|---|--:|--:|--:|--:|",
    ]
    return lines + [
        f"| {rung.name} | {seconds(rung.median_s)} | {per_second(rung.per_second)} | "
        f"{percent(rung.fraction_of_peak)} | {times(rung.speedup)} |"
        for rung in found
    ]
