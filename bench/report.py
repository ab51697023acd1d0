"""Result -> text: the table on the terminal, the markdown tables of the README.

python bench/report.py RESULT.json               the terminal table again
python bench/report.py RESULT.json --markdown    the tables for the README
python bench/report.py --gpu --markdown          that of the newest GPU result in bench/results, all
                                                 of it "not yet measured" while there is none
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.shown import cuda_report
from bench.shown.ladder import ladder_lines, ladder_markdown
from bench.shown.text import (
    WIDTH,
    Result,
    case_title,
    on_gpu,
    per_second,
    percent,
    seconds,
    times,
    wrapped,
)
from bench.shown.training_report import training_lines
from bench.suites import cuda_cases

RESULTS = Path(__file__).resolve().parent / "results"


def header_lines(result: Result) -> list[str]:
    if on_gpu(result):
        return cuda_report.header_lines(result)
    machine, versions, settings = result["machine"], result["versions"], result["settings"]
    lines = [
        f"machine   {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads used, "
        f"torch {machine['torch_isa']}, mlpkern {machine['mlpkern_isa'] or 'not built'}",
        "versions  " + ", ".join(f"{k} {v}" for k, v in versions.items()),
        f"run       {result['date']}, commit {result['commit'] or 'unknown'}, {result['command']}",
        "protocol  forward + backward through autograd; medians of interleaved samples of at least "
        f"{settings['min_sample_s'] * 1e3:.3g} ms",
    ]
    if settings["quick"]:
        lines.append(
            "quick     fewer cases and samples; no max-autotune, torch.compile with all threads "
            "only, not under the other malloc"
        )
    if not settings["compile"]:
        lines.append("partial   without torch.compile, so the ratios flatter mlpkern")
    return [line for long in lines for line in wrapped(long)]


def limit_lines(limits: Result) -> list[str]:
    if "graph_s" in limits:
        return cuda_report.limit_lines(limits)
    copy = ", ".join(
        f"{level} ({limits['copy_bytes'][level] / 1e6:.4g} MB) {rate / 1e9:.1f} GB/s"
        for level, rate in limits["copy"].items()
    )
    peak = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in limits["peak"].items())
    lines = [
        f"limits    copy, {limits['threads']} threads: {copy}",
        f"          matrix product: {peak}",
        f"          first touch of a fresh page: {seconds(limits['first_touch_s'])}",
    ]
    return [line for long in lines for line in wrapped(long)]


def case_lines(case: Result) -> list[str]:
    """The rows of one case, in the order of the provider table whatever their speed.

    The last column is the row's time divided by ours: below 1, the row is faster than we are.
    """
    if "ratio_graph" in case:
        return cuda_report.case_lines(case)
    step = case["suite"] == "training_step"
    columns = f"{'steps/s':>9}{'of peak':>9}" if step else f"{'of limit':>18}"
    bound = case["bound"]
    lines = [
        "",
        f"{case_title(case)}    limit {seconds(bound['seconds'])} = {bound['text']}",
        f"  {'provider':33}{'threads':>8}{'median':>12}{'quartiles':>26}{'samples':>9}{columns}"
        f"{'÷ ' + case['ours']:>10}",
    ]
    ours: Result = next((r for r in case["rows"] if r["provider"] == case["ours"]), {})
    for row in case["rows"]:
        start = f"  {row['provider']:33}{row['threads']:>8}"
        if "median_s" not in row:
            lines.append(f"{start}  {row['status'].upper()}: {row['reason']}"[:WIDTH])
            continue
        quartiles = f"{seconds(row['q1_s'])} – {seconds(row['q3_s'])}"
        figures = f"{percent(row['fraction_of_limit']):>18}"
        if step:
            figures = (
                f"{per_second(1 / row['median_s']):>9}{percent(row.get('fraction_of_peak')):>9}"
            )
        ratio = row["median_s"] / ours["median_s"] if "median_s" in ours else None
        lines.append(
            f"{start}{seconds(row['median_s']):>12}{quartiles:>26}{row['samples']:>9}{figures}"
            f"{times(ratio):>10}"
        )
        if row["reason"]:
            lines.append(f"    note: {row['reason']}"[:WIDTH])
    return lines


def summary_lines(result: Result) -> list[str]:
    """One line per case: best stock provider against ours."""
    if on_gpu(result):
        return cuda_report.summary_lines(result)
    lines = [
        "",
        "ratio: best stock provider / ours (cpu backend, all threads); kept: against stock under a "
        "malloc that keeps",
        "its pages; limit: fraction of the machine's limit that ours reaches, of a training step "
        "that of its cores",
        f"  {'case':50}{'best stock':>10} {'(1t: 1 thread)':26}{'ours':>10}{'ratio':>7}{'kept':>7}"
        f"{'limit':>7}",
    ]
    for case in result["cases"]:
        figures = summary(case)
        name = figures["stock"].replace(", 1 thread", " 1t").replace(", whole step", ", step")
        title = case_title(case).removesuffix("  float32")
        lines.append(
            f"  {title:50}{figures['stock_time']:>10} {name:26}"
            f"{figures['time']:>10}{figures['ratio']:>7}{figures['keeps_pages']:>7}"
            f"{figures['fraction']:>7}"
        )
        if case["baseline"]:
            text = f"against the {case['baseline']}:"
            lines.append(f"    {text:92}{times(case['ratio_baseline']):>9}")
    return lines


def summary(case: Result) -> dict[str, str]:
    """The figures of a case's line in the summary, ready to print."""
    rows = {row["provider"]: row for row in case["rows"]}
    ours, best = rows.get(case["ours"], {}), rows.get(case["best_stock"], {})
    timed = "median_s" in ours
    fraction, bound = ours.get("fraction_of_limit"), case["bound"]["by"]
    if case["suite"] == "training_step" and "fraction_of_peak" in ours:
        cores = ours["cores"]
        fraction, bound = ours["fraction_of_peak"], f"peak, {cores} core{'s' if cores > 1 else ''}"
    return {
        "stock": case["best_stock"] or "–",
        "stock_time": seconds(best["median_s"]) if best else "–",
        "time": seconds(ours["median_s"]) if timed else ours.get("status", "–").upper(),
        "ratio": times(case["ratio"]),
        "keeps_pages": times(case["ratio_keeps_pages"]),
        "fraction": percent(fraction),
        "bound": bound,
    }


def closing_lines(result: Result) -> list[str]:
    """What follows the cases."""
    return [
        *summary_lines(result),
        *([] if on_gpu(result) else ladder_lines(result)),
        *training_lines(result["training"]),
    ]


def full_text(result: Result) -> str:
    lines = header_lines(result) + limit_lines(result["limits"])
    for case in result["cases"]:
        lines += case_lines(case)
    return "\n".join(lines + closing_lines(result)) + "\n"


def markdown(result: Result) -> str:
    """The tables of the README: the ladder, then every case of the run, worst ratios included."""
    if on_gpu(result):
        return cuda_report.markdown(result, cuda_cases())
    machine, versions = result["machine"], result["versions"]
    lines = [
        f"{machine['cpu']}, {machine['threads']} threads, mlpkern {machine['mlpkern_isa']}, torch "
        f"{versions['torch']}, {result['date'][:10]}, commit {result['commit'] or 'unknown'}. "
        "Medians; an op is its forward + backward, a training step all of it with the update. "
        "Ratio: best of all stock providers / ours; in brackets against stock under a malloc that "
        "keeps its pages.",
        "",
        *(line for table in [ladder_markdown(result)] if table for line in [*table, ""]),
        "| case | dtype | best stock | time | mlpkern | ratio | of limit |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for case in result["cases"]:
        figures = summary(case)
        ratio = figures["ratio"]
        if case["ratio_keeps_pages"] is not None:
            ratio += f" ({figures['keeps_pages']})"
        if case["baseline"]:
            ratio += f" ({case['baseline']}: {times(case['ratio_baseline'])})"
        shape = case["shape"].replace("->", "→").replace("x", "×")
        lines.append(
            f"| {case['op']} {shape} | {case['dtype']} | {figures['stock']} | "
            f"{figures['stock_time']} | {figures['time']} | {ratio} | {figures['fraction']} "
            f"({figures['bound']}) |"
        )
    return "\n".join(lines) + "\n"


def load(path: Path) -> Result:
    """A result file; exits with a message when it is not one."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: not a result of bench/run.py: {error}") from None
    if not isinstance(result, dict) or result.get("schema") != 1:
        raise SystemExit(f"{path}: not a result of bench/run.py with schema 1")
    return result


def newest_gpu_result() -> Result | None:
    """The newest kept result of a GPU."""
    kept = [load(path) for path in RESULTS.glob("*.json") if not path.name.startswith("cpu-")]
    return max((r for r in kept if on_gpu(r)), key=lambda r: str(r["date"]), default=None)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Prints a result of bench/run.py as a table.")
    parser.add_argument("result", type=Path, nargs="?", help="JSON file that bench/run.py wrote")
    parser.add_argument("--markdown", action="store_true", help="the tables of the README")
    parser.add_argument("--gpu", action="store_true", help="the newest GPU result that is kept")
    options = parser.parse_args(arguments)
    if (options.result is None) != options.gpu:
        parser.error("give either a RESULT or --gpu")
    result = newest_gpu_result() if options.gpu else load(options.result)
    if result is None:
        print(cuda_report.markdown(None, cuda_cases()), end="")
        return
    print(markdown(result) if options.markdown else full_text(result), end="")


if __name__ == "__main__":
    main()
