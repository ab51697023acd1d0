"""How many times faster ours is than the best of all rivals, from the rows of a case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.core.providers import OURS, RIVALS, STOCK, STOCK_GRAPH, STOCK_KEEPS_PAGES

Row = dict[str, Any]


def ratios(
    rows: list[Row],
    ours_name: str = OURS,
    baseline: str = "",
    kinds: Iterable[str] = RIVALS,
) -> dict[str, Any]:
    """The best rival, and how many times faster our row is; None where not timed.

    Ours, like a rival, is taken at its best number of threads.

    ratio               best row of stock torch and of JAX / ours
    ratio_keeps_pages   best stock provider with a malloc that keeps its pages / ours
    ratio_baseline      the stock provider `baseline`, at its best number of threads / ours
    """
    ours = best(row for row in rows if row["provider"] in (ours_name, f"{ours_name}, 1 thread"))

    def against(kinds: Iterable[str], name: str = "") -> tuple[str | None, float | None]:
        found = best(r for r in rows if r["kind"] in kinds and r["provider"].startswith(name))
        if found is None:
            return None, None
        return found["provider"], found["median_s"] / ours["median_s"] if ours else None

    rival, ratio = against(kinds)
    best_keeps, ratio_keeps = against((STOCK_KEEPS_PAGES,))
    return {
        "ours": ours["provider"] if ours else ours_name,
        "best_rival": rival,
        "ratio": ratio,
        "best_stock_keeps_pages": best_keeps,
        "ratio_keeps_pages": ratio_keeps,
        "baseline": baseline or None,
        "ratio_baseline": against((STOCK,), baseline)[1] if baseline else None,
    }


def graph_ratios(rows: list[Row], ours_name: str, baseline: str) -> dict[str, Any]:
    """The ratios of our CUDA graph: against the best of stock and against the baseline's calls."""
    against_graphs = ratios(rows, ours_name, kinds=(STOCK_GRAPH,))
    return {
        "ours_graph": ours_name,
        "best_stock_graph": against_graphs["best_rival"],
        "ratio_graph": against_graphs["ratio"],
        "ratio_graph_baseline": ratios(rows, ours_name, baseline)["ratio_baseline"],
    }


def best(rows: Iterable[Row]) -> Row | None:
    """The fastest of the rows that were timed."""
    timed = (row for row in rows if "median_s" in row)
    return min(timed, key=lambda row: row["median_s"], default=None)
