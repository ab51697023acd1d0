"""The columns of the backend triton in the report of a GPU, and the cost of everyone's first call.

A row's first call is what makes it ready, compilation included, and its first results. Triton
compiles a kernel for new dtypes and strides and tunes it for new sizes; both are kept on disk, so a
run that wants the whole cost begins with an empty TRITON_CACHE_DIR, as bench/gpu.sh does.
"""

from __future__ import annotations

from bench.shown.text import Result, case_title, seconds, times, wrapped

BACKEND = "triton"
WORTH_A_WORD_S = 0.1
COLUMNS = ("on Triton", "ratio (eager)", "CUDA graph", "first call")


def first_call_lines(case: Result) -> list[str]:
    """What the first calls of a case took, where that is long enough to matter."""
    long = [
        f"{row['provider']} {seconds(row['first_s'])}"
        for row in case["rows"]
        if row.get("first_s", 0.0) >= WORTH_A_WORD_S
    ]
    text = "    first call, with all that it compiles and tunes: "
    return wrapped(text + ", ".join(long)) if long else []


def summary_lines(cases: list[Result]) -> list[str]:
    """One line per case, as for our other backend: times, ratios, and the first call."""
    lines = [
        "",
        f"  {'on Triton':42}{'best stock':>11} {'':20}{'triton':>10}{'ratio':>16}{'graph':>8}"
        f"{'first':>10}",
    ]
    for case in cases:
        f = figures(case)
        title = case_title(case).removesuffix("  float32").replace("training_step", "step")
        name = (case["best_stock"] or "–").replace("compile max-autotune", "max-autotune")
        lines.append(
            f"  {title:42}{f['stock_time']:>11} {name.replace(' step', ''):20}{f['time']:>10}"
            f"{f['ratio'] + ' (' + f['baseline'] + ')':>16}{f['graph_ratio']:>8}{f['first']:>10}"
        )
    return lines


def markdown_cells(case: Result) -> str:
    """The cells of COLUMNS of a measured case."""
    f = figures(case)
    return f"{f['time']} | {f['ratio']} ({f['baseline']}) | {f['graph_ratio']} | {f['first']} |"


def figures(case: Result) -> dict[str, str]:
    """Ready to print: the call of triton, and its CUDA graph (of a training step the engine's)."""
    rows = {row["provider"]: row for row in case["rows"]}
    ours = [row for row in case["rows"] if row.get("backend") == BACKEND]
    call = next(iter(ours), {})
    graph = next((row for row in reversed(ours) if row is not call), {})
    stock = rows.get(case["best_stock"] or "", {})
    stock_graph = rows.get(case["best_stock_graph"] or "", {})
    return {
        "stock_time": seconds(stock["median_s"]) if "median_s" in stock else "–",
        "time": seconds(call["median_s"]) if "median_s" in call else call.get("status", "–"),
        "ratio": _ratio(stock, call),
        "baseline": _ratio(rows.get(case["baseline"] or "", {}), call),
        "graph_ratio": _ratio(stock_graph, graph),
        "first": seconds(call["first_s"]) if "first_s" in call else "–",
    }


def _ratio(stock: Result, ours: Result) -> str:
    both = "median_s" in stock and "median_s" in ours
    return times(stock["median_s"] / ours["median_s"] if both else None)
