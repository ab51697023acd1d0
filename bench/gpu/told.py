"""Picks the lines of a step's output that the summary shows."""

from __future__ import annotations

import re


def marked(text: str) -> list[str]:
    """The lines that a program marked as its results."""
    starts = ("• ", "ok    ", "WRONG ")
    return [line for line in text.splitlines() if line.startswith(starts)] or last(text)


def last(text: str) -> list[str]:
    return text.splitlines()[-12:]


def tested(text: str) -> list[str]:
    """The failures and the totals of pytest, or the last lines where it printed none."""
    failed = re.findall(r"^(?:FAILED|ERROR) .*", text, re.MULTILINE)
    counted = r"\d+ (?:passed|failed|error|skipped|deselected)\b|[\d/]+ tests? collected|no tests "
    totals = re.findall(rf"^(?:=+ )?((?:{counted}).*?)(?: =+)?$", text, re.MULTILINE)
    return [*failed, totals[-1]] if totals else [*failed, *last(text)]


def benchmarked(text: str) -> list[str]:
    """The population, the rows that were refused, and the table at the end of the benchmark."""
    parts = r"^(?:population .*(?:\n  .*)*|REFUSED .*|bench/run\.py: .*)"
    found = [line for part in re.findall(parts, text, re.MULTILINE) for line in part.splitlines()]
    start = text.rfind("ratio: best stock")
    table = text[start:].split("\nwrote ")[0].splitlines()
    return [*found, *(table if start >= 0 else last(text))]
