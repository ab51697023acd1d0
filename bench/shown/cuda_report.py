"""The parts of the report that differ for a GPU: each row has a time per call and one on the GPU.

Ratios compare like with like: our calls with the best of stock's calls, our CUDA graph with the
best of stock's CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.case import Case
from bench.shown import triton_report
from bench.shown.text import WIDTH, Result, case_title, per_second, percent, seconds, times, wrapped

NOT_MEASURED = "not yet measured"


def header_lines(result: Result) -> list[str]:
    gpu, machine = result["machine"]["gpu"], result["machine"]
    known = {k: v for k, v in gpu.items() if k != "name" and v is not None}
    lines = [
        f"machine   {gpu['name']}: " + ", ".join(f"{k} {v}" for k, v in known.items()),
        f"          {machine['cpu']}, {machine['cores']} cores",
        "versions  " + ", ".join(f"{k} {v}" for k, v in result["versions"].items()),
        f"run       {result['date']}, commit {result['commit'] or 'unknown'}, {result['command']}",
        "protocol  forward + backward through autograd; medians of interleaved samples, per call "
        "as a loop pays for it and on the GPU alone by events; inputs rotated where the cache "
        "would hold them",
    ]
    if result["settings"]["quick"]:
        lines.append("quick     fewer cases and samples; no max-autotune")
    if not result["settings"]["compile"]:
        lines.append("partial   without torch.compile, so the ratios flatter mlpkern")
    return [line for long in lines for line in wrapped(long)]


def limit_lines(limits: Result) -> list[str]:
    lines = [
        f"limits    {_copies(limits)}",
        f"          matrix product: {_peaks(limits)}",
        f"          {_overheads(limits)}",
    ]
    return [line for long in lines for line in wrapped(long)]


def _copies(limits: Result) -> str:
    return "copy: " + ", ".join(
        f"{level} ({limits['copy_bytes'][level] / 1e6:.4g} MB) {rate / 1e9:.0f} GB/s"
        for level, rate in limits["copy"].items()
    )


def _peaks(limits: Result) -> str:
    return ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in limits["peak"].items())


def _overheads(limits: Result) -> str:
    graphs = ", ".join(f"{nodes}: {seconds(s)}" for nodes, s in limits["graph_s"].items())
    return (
        f"a launch {seconds(limits['launch_s'])}, small kernels in a stream "
        f"{seconds(limits['kernel_s'])} apart, a CUDA graph of small kernels {graphs}"
    )


def case_lines(case: Result) -> list[str]:
    """The rows of one case; the last column is a row's time per call divided by ours."""
    step, bound = case["suite"] == "training_step", case["bound"]
    columns = f"{'steps/s':>12}{'of peak':>9}" if step else f"{'on the GPU':>12}{'of limit':>9}"
    lines = [
        "",
        f"{case_title(case)}    limit {seconds(bound['seconds'])} = {bound['text']}",
        f"  {'provider':44}{'per call':>12}{'quartiles':>24}{'samples':>8}{columns}"
        f"{'÷ ' + case['ours']:>8}",
    ]
    ours: Result = next((r for r in case["rows"] if r["provider"] == case["ours"]), {})
    for row in case["rows"]:
        start = f"  {row['provider']:44}"
        if "median_s" not in row:
            lines.append(f"{start}  {row['status'].upper()}: {row['reason']}"[:WIDTH])
            continue
        quartiles = f"{seconds(row['q1_s'])} – {seconds(row['q3_s'])}"
        if step:
            figures = f"{per_second(1 / row['median_s']):>12}"
            figures += f"{percent(row.get('fraction_of_peak')):>9}"
        else:
            figures = f"{_device(row):>12}{percent(row.get('device_fraction_of_limit')):>9}"
        ratio = row["median_s"] / ours["median_s"] if "median_s" in ours else None
        lines.append(
            f"{start}{seconds(row['median_s']):>12}{quartiles:>24}{row['samples']:>8}{figures}"
            f"{times(ratio):>8}"
        )
        if row["reason"]:
            lines.append(f"    note: {row['reason']}"[:WIDTH])
    lines += triton_report.first_call_lines(case)
    if case["hurried"]:
        lines.append("    max-autotune left out for want of time")
    return lines


def _device(row: Result) -> str:
    """Time on the GPU; ~ marks samples in which the GPU had to wait for launches."""
    if "device_s" not in row:
        return "–"
    return ("~" if row["device_exposed"] else "") + seconds(row["device_s"])


def summary_lines(result: Result) -> list[str]:
    """One line per case: best stock provider against ours, by calls and by CUDA graphs."""
    lines = [
        "",
        "ratio: best stock provider without a CUDA graph / ours, in brackets the plain one / ours; "
        "graph: the same for",
        "CUDA graphs; limit: fraction of the card's limit that ours reaches on the GPU",
        f"  {'case':42}{'best stock':>11} {'':20}{'ours':>10}{'ratio':>18}{'graph':>9}{'limit':>7}",
    ]
    for case in result["cases"]:
        f = figures(case)
        name = f["stock"].replace("compile max-autotune", "max-autotune").replace(" step", "")
        title = case_title(case).removesuffix("  float32").replace("training_step", "step")
        lines.append(
            f"  {title:42}{f['stock_time']:>11} {name:20}{f['time']:>10}"
            f"{f['ratio'] + ' (' + f['baseline'] + ')':>18}{f['graph_ratio']:>9}{f['fraction']:>7}"
        )
    lines += triton_report.summary_lines(result["cases"])
    for name, reason in result["not_run"].items():
        lines += wrapped(f"  {name}: not run: {reason}")
    return lines


def figures(case: Result) -> dict[str, str]:
    """The figures of a case, ready to print."""
    rows = {row["provider"]: row for row in case["rows"]}

    def time(name: str | None) -> str:
        row = rows.get(name or "", {})
        return seconds(row["median_s"]) if "median_s" in row else row.get("status", "–")

    ours, graph = rows.get(case["ours"], {}), rows.get(case["ours_graph"], {})
    fraction = ours.get("device_fraction_of_limit", graph.get("fraction_of_limit"))
    return {
        "stock": case["best_stock"] or "–",
        "stock_time": time(case["best_stock"]),
        "time": time(case["ours"]),
        "ratio": times(case["ratio"]),
        "baseline": times(case["ratio_baseline"]),
        "stock_graph_time": time(case["best_stock_graph"]),
        "graph_time": time(case["ours_graph"]),
        "graph_ratio": times(case["ratio_graph"]),
        "graph_baseline": times(case["ratio_graph_baseline"]),
        "fraction": percent(fraction),
        "bound": case["bound"]["by"],
    }


def markdown(result: Result | None, listed: Iterable[Case]) -> str:
    """The GPU table of the README: the `listed` cases, then any others of the result.

    Without a result (None), a case is "not yet measured".
    """
    lines = [] if result is None else [_provenance(result), ""]
    lines += [
        "| case | dtype | best stock | time | mlpkern | ratio (eager) | CUDA graph: stock | "
        f"mlpkern | ratio (eager) | of limit | {' | '.join(triton_report.COLUMNS)} |",
        f"|---|---|---{'|--:' * (7 + len(triton_report.COLUMNS))}|",
    ]
    measured = {_key(case): case for case in (result["cases"] if result else [])}
    for key in dict.fromkeys([*((c.op, c.shape, c.dtype) for c in listed), *measured]):
        op, shape, dtype = key
        start = f"| {op} {shape.replace('->', '→').replace('x', '×')} | {dtype} | "
        if key not in measured:
            others = " –" + " | –" * (len(triton_report.COLUMNS) - 2)
            lines.append(f"{start}– | – | {NOT_MEASURED} |{' – |' * 5} {NOT_MEASURED} |{others} |")
            continue
        f = figures(measured[key])
        lines.append(
            f"{start}{f['stock']} | {f['stock_time']} | {f['time']} | {f['ratio']} "
            f"({f['baseline']}) | {f['stock_graph_time']} | {f['graph_time']} | "
            f"{f['graph_ratio']} ({f['graph_baseline']}) | {f['fraction']} ({f['bound']}) | "
            + triton_report.markdown_cells(measured[key])
        )
    return "\n".join(lines) + "\n"


def _provenance(result: Result) -> str:
    gpu, versions = result["machine"]["gpu"], result["versions"]
    return (
        f"{gpu['name']}, driver {gpu.get('driver_version', 'unknown')}, torch {versions['torch']}, "
        f"{result['date'][:10]}, commit {result['commit'] or 'unknown'}; "
        f"{_copies(result['limits'])}; {_peaks(result['limits'])}; {_overheads(result['limits'])}. "
        "Medians per call; an op is its forward + backward, a training step all of it. Ratio: best "
        "stock provider / ours, in brackets eager (of a step: the lecture's loop) / ours; then the "
        "same with everybody's call captured in a CUDA graph. Of limit: on the GPU alone. On "
        "Triton: the same by that backend; its first call compiles and tunes."
    )


def _key(case: Result) -> tuple[str, str, str]:
    return case["op"], case["shape"], case["dtype"]
