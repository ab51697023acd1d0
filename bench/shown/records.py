"""The kept results of all CPUs as one page: an overview, then the tables of each machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.shown.figures import row_of, time_of, title
from bench.shown.summary import markdown
from bench.shown.text import Column, Result, machine_name, markdown_table, shape_text, times

HEAD = """# All machines

Written by `python bench/report.py --all --markdown` from the records in `bench/results`.
First the time of mlpkern and, in brackets, how many times faster it is than the best rival of the
same run; then the tables of each record. How it is measured: [Method](method.md).
"""


def records_markdown(results: Sequence[Result]) -> str:
    """The page; a case is in the overview when any record has it, in the order of the first."""
    cases = {title(case): case for result in reversed(results) for case in result["cases"]}
    order = {title(case): None for result in results for case in result["cases"]}
    columns = [Column("case", "<", lambda case: shape_text(title(case).replace("  ", " ")))]
    columns += [Column(label(result), ">", partial(_cell, result)) for result in results]
    lines = [HEAD, *markdown_table(columns, [cases[name] for name in order]), ""]
    for result in results:
        lines += [f"## {label(result)}", "", markdown(result)]
    return "\n".join(lines)


def label(result: Result) -> str:
    return f"{machine_name(result)}, {result['date'][:10]}"


def _cell(result: Result, case: Result) -> str:
    found = next((c for c in result["cases"] if title(c) == title(case)), None)
    if found is None:
        return "–"
    return f"{time_of(row_of(found, 'ours'))} ({times(found['ratio'])})"
