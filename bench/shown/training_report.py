"""The training of the engines as text: losses side by side, speed, and how soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.shown.text import per_second

Result = dict[str, Any]


def training_lines(training: Result | None) -> list[str]:
    """The losses of the engines side by side, and the seconds of their steps."""
    if training is None:
        return []
    if "reason" in training:
        return ["", f"training run on names: not done: {training['reason']}"]
    engines = training["engines"]

    def line(label: str, value: Callable[[Result], str]) -> str:
        return f"  {label:30}" + "".join(f"{value(engine):>14}" for engine in engines.values())

    lines = [
        "",
        f"training run on names: {training['data']}, {training['steps']} steps",
        *([f"  {training['config']}"] if "config" in training else []),
        f"  {'mean loss of steps':30}" + "".join(f"{name:>14}" for name in engines),
    ]
    for i in range(len(next(iter(engines.values()))["losses"])):
        first = i * training["every"]
        last = min(first + training["every"], training["steps"])
        lines.append(line(f"{first} – {last - 1}", lambda e, i=i: f"{e['losses'][i]:.6f}"))  # type: ignore[misc]
    lines.append(line("dev loss", lambda e: f"{e['dev_loss']:.6f}"))
    lines.append(line("seconds of steps", lambda e: f"{e['seconds']:.3f}"))
    lines.append(line("steps per second", lambda e: per_second(training["steps"] / e["seconds"])))
    if "reach" in training:
        label = f"seconds to dev loss {training['reach']:.4g}"
        lines.append(line(label, lambda e: _or_never(e["seconds_to_reach"])))
    return lines


def _or_never(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.3f}"
