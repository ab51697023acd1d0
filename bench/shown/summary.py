"""A line for each case, on the terminal and in markdown: the best rival against ours.

On a GPU ratios compare like with like: our calls with the best of stock's calls, our CUDA graph
with the best of stock's CUDA graphs. The backend triton has the same figures in columns of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.case import Case
from bench.shown.figures import (
    reached,
    rival_name,
    row_of,
    time_of,
    title,
    triton_graph_ratio,
    triton_ratio,
    triton_row,
    with_brackets,
)
from bench.shown.header import limit_texts, load_text
from bench.shown.ladder import ladder_markdown
from bench.shown.text import (
    Column,
    Result,
    heading,
    line,
    machine_name,
    markdown_table,
    on_gpu,
    percent,
    seconds,
    shape_text,
    terminal_table,
    times,
    wrapped,
)

CPU_LEGEND = (
    "ratio: best rival (stock torch, JAX) / ours (cpu backend), each at its best number of threads",
    "kept: against stock under a malloc that keeps its pages",
    "limit: which fraction of the machine's limit ours reaches, in training of its cores' peak",
)
GPU_LEGEND = (
    "ratio: best stock provider without a CUDA graph / ours, in brackets the plain one / ours; "
    "graph: the same for",
    "CUDA graphs; limit: fraction of the GPU's limit that ours reaches on the GPU",
)
CPU_COLUMNS = [
    Column("case", "<50", title),
    Column("best rival", ">10", lambda c: time_of(row_of(c, "best_rival"))),
    Column(" (1t: 1 thread)", "<27", rival_name),
    Column("ours", ">10", lambda c: time_of(row_of(c, "ours"))),
    Column("ratio", ">7", lambda c: times(c["ratio"])),
    Column("kept", ">7", lambda c: times(c["ratio_keeps_pages"])),
    Column("limit", ">7", lambda c: percent(reached(c)[0])),
]
GPU_COLUMNS = [
    Column("case", "<42", title),
    Column("best rival", ">11", lambda c: time_of(row_of(c, "best_rival"))),
    Column("", "<21", rival_name),
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
    if told := load_text(result):
        lines += wrapped(f"  {told}")
    for name, reason in result.get("not_run", {}).items():
        lines += wrapped(f"  {name}: not run: {reason}")
    return lines


# In markdown

NOT_MEASURED = "not yet measured"
CPU_EXPLANATION = (
    "Medians; an op is its forward + backward, a training step all of it with the update. Ratio: "
    "best of all rivals (stock torch, JAX) / ours, each at its best number of threads; in brackets "
    "against stock under a malloc that keeps its pages."
)
GPU_EXPLANATION = (
    "Medians per call; an op is its forward + backward, a training step all of it. Ratio: best "
    "stock provider / ours, in brackets eager (of a step: the lecture's loop) / ours; then the "
    "same with every call captured in a CUDA graph. Of limit: on the GPU alone. On "
    "Triton: the same by that backend; its first call compiles and tunes."
)


def cpu_ratio(case: Result) -> str:
    ratio = times(case["ratio"])
    if case["ratio_keeps_pages"] is not None:
        ratio += f" ({times(case['ratio_keeps_pages'])})"
    if case["baseline"]:
        ratio += f" ({case['baseline']}: {times(case['ratio_baseline'])})"
    return ratio


def _measured(found: Result, case: Result) -> str:
    return time_of(found) if case["rows"] else NOT_MEASURED


def limit(case: Result) -> str:
    if not case["rows"]:
        return "–"
    fraction, by = reached(case)
    return f"{percent(fraction)} ({by})"


RIVAL_TABLE = [
    Column("case", "<", lambda c: f"{c['op']} {shape_text(c['shape'])}"),
    Column("dtype", "<", lambda c: c["dtype"]),
    Column("best rival", "<", lambda c: c["best_rival"] or "–"),
    Column("time", ">", lambda c: time_of(row_of(c, "best_rival"))),
    Column("mlpkern", ">", lambda c: _measured(row_of(c, "ours"), c)),
]
CPU_TABLE = [*RIVAL_TABLE, Column("ratio", ">", cpu_ratio), Column("of limit", ">", limit)]
GPU_TABLE = [
    *RIVAL_TABLE,
    Column("ratio (eager)", ">", lambda c: with_brackets(c["ratio"], c["ratio_baseline"])),
    Column("CUDA graph: stock", ">", lambda c: time_of(row_of(c, "best_stock_graph"))),
    Column("mlpkern", ">", lambda c: time_of(row_of(c, "ours_graph"))),
    Column(
        "ratio (eager)", ">", lambda c: with_brackets(c["ratio_graph"], c["ratio_graph_baseline"])
    ),
    Column("of limit", ">", limit),
    Column("on Triton", ">", lambda c: _measured(triton_row(c, 0), c)),
    Column("ratio (eager)", ">", triton_ratio),
    Column("CUDA graph", ">", triton_graph_ratio),
    Column("first call", ">", lambda c: seconds(triton_row(c, 0).get("first_s"))),
]
RATIOS = ("ratio", "ratio_baseline", "ratio_graph", "ratio_graph_baseline")


def markdown(result: Result) -> str:
    """The tables of a CPU: the ladder, then every case of the run, worst ratios included."""
    commit = result["commit"] or "unknown"
    jax = result["settings"].get("jax") and result["versions"].get("jax")
    rivals = f"JAX {jax}" if jax else "measured without JAX"
    load = f" {told}." if (told := load_text(result)) else ""
    lines = [
        f"{machine_name(result)}, torch {result['versions']['torch']}, {rivals}, "
        f"{result['date'][:10]}, commit {commit}.{load} {CPU_EXPLANATION}",
        "",
    ]
    if ladder := ladder_markdown(result):
        lines += [*ladder, ""]
    return "\n".join([*lines, *markdown_table(CPU_TABLE, result["cases"])]) + "\n"


def gpu_markdown(result: Result | None, listed: Iterable[Case]) -> str:
    """The table of a GPU: the `listed` cases, then any others of the result.

    A case without a result is "not yet measured".
    """
    empty = {"rows": [], "best_rival": None, **dict.fromkeys(RATIOS)}
    cases = {
        (c.op, c.shape, c.dtype): {**empty, "op": c.op, "shape": c.shape, "dtype": c.dtype}
        for c in listed
    }
    lines = []
    if result:
        cases |= {(c["op"], c["shape"], c["dtype"]): c for c in result["cases"]}
        gpu, commit = result["machine"]["gpu"], result["commit"] or "unknown"
        lines = [
            f"{gpu['name']}, driver {gpu.get('driver_version', 'unknown')}, torch "
            f"{result['versions']['torch']}, {result['date'][:10]}, commit {commit}; "
            f"{'; '.join(limit_texts(result['limits']))}. {GPU_EXPLANATION}",
            "",
        ]
    return "\n".join([*lines, *markdown_table(GPU_TABLE, cases.values())]) + "\n"
