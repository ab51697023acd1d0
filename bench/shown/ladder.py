"""The ladder stock -> ops -> run: the ways of taking one step of the lecture's model, side by side.

Rungs are rows of a result, each at its best number of threads: the lecture's loop, the foreach
update, the fastest row of stock if it is another one, the fastest of JAX, then `ops` and `run`.
More are for two models at once, per step of either: the fastest row of stock, of JAX, and `run`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.shown.text import (
    Column,
    Result,
    markdown_table,
    on_gpu,
    per_second,
    percent,
    seconds,
    terminal_table,
    times,
)

STOCK, JAX = "stock", "jax"
LECTURE_SHAPE = "V=27 T=3 D=10 H=200 N=32"
TWO_MODELS = "two models: "
TWO_MODELS_SHAPE = f"{LECTURE_SHAPE}, 2 models"


@dataclass(frozen=True)
class Rung:
    """A row of the ladder. `speedup` is against the first rung."""

    name: str
    ours: bool
    median_s: float
    speedup: float
    fraction_of_peak: float | None  # of the matrix products of the cores it works on

    @property
    def two_models(self) -> bool:
        return self.name.startswith(TWO_MODELS)

    @property
    def per_second(self) -> float:
        return 1 / self.median_s


def rungs(result: Result) -> list[Rung]:
    """From the slowest way to `run`; empty where the lecture's step was not measured.

    On a GPU there is none: its cases have other rows.
    """
    if on_gpu(result):
        return []
    rows = _picked(result, LECTURE_SHAPE, ("lecture loop", "foreach update", ""), ("ops", "run"))
    if not rows or rows[0][1]["kind"] != STOCK:
        return []
    rows += _picked(result, TWO_MODELS_SHAPE, ("",), ("run",), prefix=TWO_MODELS)
    base = rows[0][1]["median_s"]
    return [
        Rung(
            name,
            row["kind"] not in (STOCK, JAX),
            row["median_s"],
            base / row["median_s"],
            row.get("fraction_of_peak"),
        )
        for name, row in rows
    ]


def _picked(
    result: Result, shape: str, stock: tuple[str, ...], ours: tuple[str, ...], prefix: str = ""
) -> list[tuple[str, Result]]:
    """The fastest timed row of stock whose name starts with each of `stock`, then that of JAX, then
    that of each of `ours`."""
    case = next((c for c in result["cases"] if c["shape"] == shape), {"rows": []})
    timed = [row for row in case["rows"] if "median_s" in row]
    wanted = [[r for r in timed if r["kind"] == STOCK and r["provider"].startswith(name)]
              for name in stock]  # fmt: skip
    wanted.append([r for r in timed if r["kind"] == JAX])
    wanted += [[r for r in timed if r["provider"] in (name, f"{name}, 1 thread")] for name in ours]
    found: list[Result] = []
    for rows in wanted:
        if rows and (best := min(rows, key=lambda row: row["median_s"])) not in found:
            found.append(best)
    return [(prefix + _said(row), row) for row in found]


def _said(row: Result) -> str:
    name: str = row["provider"]
    if row["kind"] == STOCK:
        return f"stock, {name}"
    return name if row["kind"] == JAX else name.removesuffix(", 1 thread")


def ladder_lines(result: Result) -> list[str]:
    """The ladder on the terminal."""
    found = rungs(result)
    title = f"a step of the lecture's model, {LECTURE_SHAPE}, per model"
    return ["", title, *terminal_table([_NAME, *_FIGURES], found)] if found else []


def ladder_markdown(result: Result) -> list[str]:
    """The ladder as a table."""
    found = rungs(result)
    name = replace(_NAME, heading=f"step of the lecture's model, {LECTURE_SHAPE}")
    return markdown_table([name, *_FIGURES], found) if found else []


_NAME = Column("", "<56", lambda rung: rung.name)
_FIGURES = [
    Column("time", ">12", lambda rung: seconds(rung.median_s)),
    Column("steps/s", ">12", lambda rung: per_second(rung.per_second)),
    Column("of peak", ">10", lambda rung: percent(rung.fraction_of_peak)),
    Column("speedup", ">12", lambda rung: times(rung.speedup)),
]
