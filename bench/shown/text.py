"""Figures and names as text."""

from __future__ import annotations

import textwrap
from typing import Any

WIDTH = 120
Result = dict[str, Any]


def on_gpu(result: Result) -> bool:
    return result.get("device", "cpu") == "cuda"


def case_title(case: Result) -> str:
    return f"{case['op']}  {case['shape']}  {case['dtype']}"


def machine_name(result: Result) -> str:
    """The card, or the processor with the threads that were used."""
    machine = result["machine"]
    if on_gpu(result):
        return str(machine["gpu"]["name"])
    return f"{machine['cpu']}, {machine['threads']} threads"


def wrapped(line: str) -> list[str]:
    """The line in pieces that fit the terminal, continued under its text."""
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False)


def seconds(value: float) -> str:
    """Four significant digits in the unit that suits: ns, µs, ms or s."""
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
