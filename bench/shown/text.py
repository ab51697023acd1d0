"""Figures and names as text, and tables for the terminal and for markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 120
Result = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, the cell of a row, and the cell's format.

    The format is that of the terminal, such as "<44" or ">12"; markdown takes the alignment.
    """

    heading: str
    format: str
    cell: Callable[[Any], str]


def terminal_table(columns: Sequence[Column], rows: Iterable[object]) -> list[str]:
    """The heading and a line for each row."""
    return [heading(columns), *(line(columns, row) for row in rows)]


def heading(columns: Sequence[Column]) -> str:
    return "  " + "".join(f"{c.heading:{c.format}}" for c in columns)


def line(columns: Sequence[Column], row: object) -> str:
    return "  " + "".join(f"{c.cell(row):{c.format}}" for c in columns)


def markdown_table(columns: Sequence[Column], rows: Iterable[object]) -> list[str]:
    """The same as a table of markdown."""
    rules = ["---" if c.format.startswith("<") else "--:" for c in columns]
    cells = [[c.heading for c in columns], *([c.cell(row) for c in columns] for row in rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], f"|{'|'.join(rules)}|", *lines[1:]]


def wrapped(line: str) -> list[str]:
    """The line in pieces that fit the terminal, continued under its text."""
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False)


def on_gpu(result: Result) -> bool:
    return result.get("device", "cpu") == "cuda"


def case_title(case: Result) -> str:
    return f"{case['op']}  {case['shape']}  {case['dtype']}"


def shape_text(shape: str) -> str:
    return shape.replace("->", "→").replace("x", "×")


def machine_name(result: Result) -> str:
    """The GPU, or the CPU with the number of threads."""
    machine = result["machine"]
    if on_gpu(result):
        return str(machine["gpu"]["name"])
    return f"{machine['cpu']}, {machine['threads']} threads, mlpkern {isa_text(machine)}"


def narrowed(machine: Result) -> str:
    """The instruction set that mlpkern could have run, where MLPKERN_ISA chose another."""
    widest = next(iter(machine.get("isas", [])), "")
    return widest if widest != machine.get("mlpkern_isa") else ""


def isa_text(machine: Result) -> str:
    """The instruction set of mlpkern, and whether it is not that of the machine."""
    isa = machine.get("mlpkern_isa") or "not built"
    return f"{isa} (by MLPKERN_ISA; the CPU has {narrowed(machine)})" if narrowed(machine) else isa


def seconds(value: float | None) -> str:
    """Four significant digits in the unit that suits: ns, µs, ms or s."""
    if value is None:
        return "–"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}x"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def per_second(value: float) -> str:
    """Three significant digits, in full: 54,900."""
    if value < 100:
        return f"{value:.3g}"
    digits = len(f"{value:.0f}")
    return f"{round(value, 3 - digits) if digits > 3 else value:,.0f}"
