"""A line for each case on the terminal: the best stock provider against ours.

On a GPU ratios compare like with like: our calls with the best of stock's calls, our CUDA graph
with the best of stock's CUDA graphs. The backend triton has the same figures in columns of its own.
"""

from __future__ import annotations

from bench.shown.figures import (
    reached,
    row_of,
    stock_name,
    time_of,
    title,
    triton_graph_ratio,
    triton_ratio,
    triton_row,
    with_brackets,
)
from bench.shown.text import (
    Column,
    Result,
    heading,
    line,
    on_gpu,
    percent,
    seconds,
    terminal_table,
    times,
    wrapped,
)

CPU_LEGEND = (
    "ratio: best stock provider / ours (cpu backend, all threads); kept: against stock under a "
    "malloc that keeps",
    "its pages; limit: fraction of the machine's limit that ours reaches, of a training step "
    "that of its cores",
)
GPU_LEGEND = (
    "ratio: best stock provider without a CUDA graph / ours, in brackets the plain one / ours; "
    "graph: the same for",
    "CUDA graphs; limit: fraction of the GPU's limit that ours reaches on the GPU",
)
CPU_COLUMNS = [
    Column("case", "<50", title),
    Column("best stock", ">10", lambda c: time_of(row_of(c, "best_stock"))),
    Column(" (1t: 1 thread)", "<27", stock_name),
    Column("ours", ">10", lambda c: time_of(row_of(c, "ours"))),
    Column("ratio", ">7", lambda c: times(c["ratio"])),
    Column("kept", ">7", lambda c: times(c["ratio_keeps_pages"])),
    Column("limit", ">7", lambda c: percent(reached(c)[0])),
]
GPU_COLUMNS = [
    Column("case", "<42", title),
    Column("best stock", ">11", lambda c: time_of(row_of(c, "best_stock"))),
    Column("", "<21", stock_name),
    Column("ours", ">10", lambda c: time_of(row_of(c, "ours"))),
    Column("ratio", ">18", lambda c: with_brackets(c["ratio"], c["ratio_baseline"])),
    Column("graph", ">9", lambda c: times(c["ratio_graph"])),
    Column("limit", ">7", lambda c: percent(reached(c)[0])),
]
TRITON_COLUMNS = [
    Column("on Triton", "<42", title),
    *GPU_COLUMNS[1:3],
    Column("triton", ">10", lambda c: time_of(triton_row(c, 0))),
    Column("ratio", ">16", triton_ratio),
    Column("graph", ">8", triton_graph_ratio),
    Column("first", ">10", lambda c: seconds(triton_row(c, 0).get("first_s"))),
]


def summary_lines(result: Result) -> list[str]:
    """A line for each case, and the cases that were not run."""
    cases = result["cases"]
    if on_gpu(result):
        lines = ["", *GPU_LEGEND, *terminal_table(GPU_COLUMNS, cases)]
        lines += ["", *terminal_table(TRITON_COLUMNS, cases)]
        for name, reason in result["not_run"].items():
            lines += wrapped(f"  {name}: not run: {reason}")
        return lines
    lines = ["", *CPU_LEGEND, heading(CPU_COLUMNS)]
    for case in cases:
        lines.append(line(CPU_COLUMNS, case))
        if case["baseline"]:
            text = f"against the {case['baseline']}:"
            lines.append(f"    {text:92}{times(case['ratio_baseline']):>9}")
    return lines
