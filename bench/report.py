"""Result -> text: the table on the terminal, the tables of the documentation in markdown.

python bench/report.py RESULT.json               the terminal table again
python bench/report.py RESULT.json --markdown    the tables of the documentation
python bench/report.py --gpu --markdown          that of the newest GPU result in bench/results, all
                                                 of it "not yet measured" while there is none
python bench/report.py --all --markdown          the page of all CPU results in bench/results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: the package is found from the root of the repository
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import ROOT
from bench.core.ratios import ratios
from bench.shown.cases import case_lines
from bench.shown.header import header_lines, limit_lines
from bench.shown.ladder import ladder_lines
from bench.shown.records import records_markdown
from bench.shown.summary import gpu_markdown, markdown, summary_lines
from bench.shown.text import Result, on_gpu
from bench.shown.training import training_lines
from bench.suites import cuda_cases

RESULTS = ROOT / "bench" / "results"


def full_text(result: Result) -> str:
    """Everything that a run printed."""
    lines = header_lines(result) + limit_lines(result["limits"])
    for case in result["cases"]:
        lines += case_lines(case)
    lines += summary_lines(result) + ladder_lines(result) + training_lines(result["training"])
    return "\n".join(lines) + "\n"


def load(path: Path) -> Result:
    """A result file; exits with a message when it is not one."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: not a result of bench/run.py: {error}") from None
    if not isinstance(result, dict) or result.get("schema") != 1:
        raise SystemExit(f"{path}: not a result of bench/run.py with schema 1")
    if not on_gpu(result):  # in older files the best of stock against ours with all threads
        for case in result["cases"]:
            ours = case["ours"].removesuffix(", 1 thread")
            case |= ratios(case["rows"], ours, case["baseline"] or "")
    return result


def newest_gpu_result() -> Result | None:
    """The newest kept result of a GPU."""
    kept = [load(path) for path in RESULTS.glob("*.json") if not path.name.startswith("cpu-")]
    return max((r for r in kept if on_gpu(r)), key=lambda r: str(r["date"]), default=None)


def cpu_records() -> list[Result]:
    """All kept results of CPUs, the newest first."""
    kept = [load(path) for path in sorted(RESULTS.glob("cpu-*.json"))]
    return sorted(kept, key=lambda result: str(result["date"]), reverse=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Prints a result of bench/run.py as a table.")
    parser.add_argument("result", type=Path, nargs="?", help="JSON file that bench/run.py wrote")
    parser.add_argument("--markdown", action="store_true", help="the tables of the documentation")
    parser.add_argument("--gpu", action="store_true", help="the newest GPU result that is kept")
    parser.add_argument("--all", action="store_true", help="all CPU results that are kept")
    options = parser.parse_args(arguments)
    if [options.result is not None, options.gpu, options.all].count(True) != 1:
        parser.error("give either a RESULT or --gpu or --all")
    if options.all:
        print(
            records_markdown(cpu_records())
            if options.markdown
            else "".join(map(full_text, cpu_records())),
            end="",
        )
        return
    result = newest_gpu_result() if options.gpu else load(options.result)
    if result is not None and not options.markdown:
        print(full_text(result), end="")
    elif result is None or on_gpu(result):
        print(gpu_markdown(result, cuda_cases()), end="")
    else:
        print(markdown(result), end="")


if __name__ == "__main__":
    main()
