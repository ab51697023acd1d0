"""The figures of a case in the lines and tables that have one line for each case."""

from __future__ import annotations

from bench.shown.text import Result, case_title, seconds, times


def row_of(case: Result, name: str) -> Result:
    """The row of the provider that the case has under this name; empty where there is none."""
    return next((r for r in case["rows"] if r["provider"] == case.get(name)), {})


def time_of(found: Result) -> str:
    """The time of a row, or why it has none."""
    return seconds(found["median_s"]) if "median_s" in found else found.get("status", "–").upper()


def reached(case: Result) -> tuple[float | None, str]:
    """Which fraction of a limit ours reaches, and of which limit."""
    ours = row_of(case, "ours")
    if "ours_graph" in case:
        graph = row_of(case, "ours_graph").get("fraction_of_limit")
        return ours.get("device_fraction_of_limit", graph), case["bound"]["by"]
    if case["suite"] == "training_step" and "fraction_of_peak" in ours:
        cores = ours["cores"]
        return ours["fraction_of_peak"], f"peak, {cores} core{'s' if cores > 1 else ''}"
    return ours.get("fraction_of_limit"), case["bound"]["by"]


def triton_row(case: Result, number: int) -> Result:
    """The row of a call on the backend triton (0), of its last CUDA graph (-1)."""
    rows = [r for r in case["rows"] if r.get("backend") == "triton"]
    return rows[number] if len(rows) > (number != 0) else {}


def against(stock: Result, ours: Result) -> float | None:
    both = "median_s" in stock and "median_s" in ours
    return stock["median_s"] / ours["median_s"] if both else None


def with_brackets(ratio: float | None, other: float | None) -> str:
    return "–" if ratio is None and other is None else f"{times(ratio)} ({times(other)})"


def triton_ratio(case: Result) -> str:
    ours = triton_row(case, 0)
    return with_brackets(
        against(row_of(case, "best_rival"), ours), against(row_of(case, "baseline"), ours)
    )


def triton_graph_ratio(case: Result) -> str:
    return times(against(row_of(case, "best_stock_graph"), triton_row(case, -1)))


def title(case: Result) -> str:
    found = case_title(case).removesuffix("  float32")
    return found.replace("training_step", "step") if "ours_graph" in case else found


def rival_name(case: Result) -> str:
    name = case["best_rival"] or "–"
    if "ours_graph" in case:
        return " " + name.replace("compile max-autotune", "max-autotune").replace(" step", "")
    short = {", 1 thread": " 1t", ", whole step": ", step", "JAX scan": "JAX"}
    for text, shorter in short.items():
        name = name.replace(text, shorter)
    return " " + name
