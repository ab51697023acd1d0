"""Figures as text."""

from __future__ import annotations


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
    digits = len(f"{value:.0f}")
    return f"{round(value, 3 - digits) if digits > 3 else value:,.0f}"
