"""The trainings at the end of a run as text: losses, speed, and how soon a loss is reached."""

from __future__ import annotations

from collections.abc import Callable

from bench.shown.text import Column, Result, per_second, terminal_table


def training_lines(training: Result | None) -> list[str]:
    """The losses of the engines side by side, and the seconds of their steps."""
    if training is None:
        return []
    if "reason" in training:
        return ["", f"training run on names: not done: {training['reason']}"]
    steps, every = training["steps"], training["every"]
    rows: dict[str, Callable[[Result], str]] = {}  # a label and the cell of an engine
    for i in range(len(next(iter(training["engines"].values()))["losses"])):
        last = min((i + 1) * every, steps) - 1
        rows[f"{i * every} – {last}"] = lambda e, i=i: f"{e['losses'][i]:.6f}"  # type: ignore[misc]
    rows["dev loss"] = lambda e: f"{e['dev_loss']:.6f}"
    rows["seconds of steps"] = lambda e: f"{e['seconds']:.3f}"
    rows["steps per second"] = lambda e: per_second(steps / e["seconds"])
    if "reach" in training:
        label = f"seconds to dev loss {training['reach']:.4g}"
        rows[label] = lambda e: _or_never(e["seconds_to_reach"])
    columns = [Column("mean loss of steps", "<30", lambda row: row[0])]
    for name, engine in training["engines"].items():
        columns.append(Column(name, ">14", lambda row, engine=engine: row[1](engine)))  # type: ignore[misc]
    return [
        "",
        f"training run on names: {training['data']}, {steps} steps",
        *([f"  {training['config']}"] if "config" in training else []),
        *terminal_table(columns, rows.items()),
    ]


def _or_never(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.3f}"


def population_lines(result: Result) -> list[str]:
    """The population that was trained on a GPU, or why there is none."""
    if "reason" in result:
        return ["", f"population: not run: {result['reason']}"]
    steps, models = result["steps"], result["models"]
    columns = [
        Column("precision", "<12", lambda named: named[0]),
        Column("wall time", ">12", lambda named: f"{named[1]['seconds']:.2f} s"),
        Column("steps/s of all", ">18",
               lambda named: per_second(models * steps / named[1]["seconds"])),
        Column("   dev loss: mean, std, best", "<",
               lambda named: "   " + ", ".join(f"{named[1][f'dev_{of}']:.4f}"
                                               for of in ("mean", "std", "best"))),
    ]  # fmt: skip
    return [
        "",
        f"population of {models} models, {steps:,} steps each: {result['data']}",
        *terminal_table(columns, result["runs"].items()),
    ]
