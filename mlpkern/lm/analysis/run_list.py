"""What is in a folder of runs: runs, sweeps and populations, read from headers and records alone.

A damaged or foreign folder is an entry with a note, never an error.
"""

from __future__ import annotations

import csv
import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlpkern.lm.analysis.text_table import aligned
from mlpkern.lm.atomic_write import csv_text
from mlpkern.lm.errors import CheckpointError, ConfigError, LMError
from mlpkern.lm.many.kept.folder import PopulationFolder
from mlpkern.lm.many.kept.record import PopulationRecord
from mlpkern.lm.model.config import PRESETS, SETTINGS, TrainConfig, settings_of
from mlpkern.lm.model.schedule import step_at
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.saved.checkpoint import read_best
from mlpkern.lm.saved.checkpoint_file import named, read_settings
from mlpkern.lm.saved.folder_kind import JOURNAL, TRIALS, folder_kind, folders_in
from mlpkern.lm.saved.folder_lock import holder_of
from mlpkern.lm.saved.log import read_log
from mlpkern.lm.saved.records import read_losses, read_record
from mlpkern.lm.saved.run_folder import RunFolder

State = Literal["finished", "interrupted", "running", "damaged", "foreign", ""]
SORTED: dict[str, Callable[[ListedRun], Any]] = {
    "date": lambda one: one.date,
    "dev": lambda one: math.inf if one.lowest is None else one.lowest,
    "name": lambda one: one.path.name,
}


@dataclass(frozen=True)
class ListedRun:
    """A run, a sweep, a population, or a folder that is none of them.

    Attributes:
        kind: "run", "sweep" or "population"; empty for anything else
        date: when it was last written to, in seconds since 1970
        words: the name of the file that its words came from
        preset: the preset with the fewest other settings
        settings: name -> value as on the command line, where it differs from the preset; "over":
            what a sweep or a population varies
        step: steps done; of a sweep or a population, models trained
        steps: steps of the whole run; models of a population; None for a sweep
        dev: loss over the whole dev split at the end; for an unfinished run the last of its log
        best_dev: the lowest dev loss
        state: "finished", "interrupted", "running" (a living process writes there), "damaged", or
            "foreign"; empty for sweeps, which can always go on
        note: what is wrong or how to go on, in one line that names the folder
    """

    path: Path
    kind: str = ""
    date: float = 0.0
    words: str = ""
    preset: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    step: int | None = None
    steps: int | None = None
    dev: float | None = None
    best_dev: float | None = None
    state: State = ""
    note: str = ""

    @property
    def lowest(self) -> float | None:
        """``best_dev``, else ``dev``."""
        return self.dev if self.best_dev is None else self.best_dev

    @property
    def day(self) -> str:
        """``date`` in local time."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.date))


def list_runs(folder: str | Path = "runs", *, sort: str = "date") -> list[ListedRun]:
    """The runs, sweeps and populations in ``folder``, and its other folders.

    Only headers, records and logs are read, so a checkpoint with a damaged tensor counts as whole.

    Args:
        folder: a folder of runs, or a single run, sweep or population.
        sort: "date", the oldest first; "dev", the lowest dev loss first; or "name".

    CheckpointError if there is no such folder, ConfigError for another ``sort``.
    """
    path = Path(folder)
    if sort not in SORTED:
        raise ConfigError(f"sort must be one of {', '.join(SORTED)}, got {sort!r}")
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; mlpkern train makes runs in runs/")
    try:
        paths = [path] if folder_kind(path) else folders_in(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    return sorted(map(_listed, paths), key=SORTED[sort])


def runs_text(runs: Sequence[ListedRun]) -> str:
    """A table with a line for each run, sweep and population; below it the notes."""
    rows = [["name", "kind", "date", "words", "steps", "dev", "best dev", "state", "settings"]]
    for run in runs:
        if run.state not in ("damaged", "foreign"):
            parts = [run.preset, *(f"{name} {text}" for name, text in run.settings.items())]
            rows.append(
                [run.path.name, run.kind, run.day, run.words or "-", _steps(run), _loss(run.dev),
                 _loss(run.best_dev), run.state or "-", ", ".join(filter(None, parts))]
            )  # fmt: skip
    notes = [run.note for run in runs if run.note]
    return "\n".join([*(aligned(rows) if len(rows) > 1 else []), *notes])


def runs_csv(runs: Sequence[ListedRun]) -> str:
    """CSV of `ListedRun`: ``settings`` as "name value, …", the date in ISO 8601, local time."""
    heads = ["name", "path", "kind", "date", "words", "preset", "settings", "step", "steps", "dev",
             "best_dev", "state", "note"]  # fmt: skip
    rows: list[list[Any]] = [heads]
    for run in runs:
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(run.date))
        settings = ", ".join(f"{name} {text}" for name, text in run.settings.items())
        rows.append(
            [run.path.name, run.path, run.kind, date, run.words, run.preset, settings, run.step,
             run.steps, run.dev, run.best_dev, run.state, run.note]
        )  # fmt: skip
    return csv_text(rows)


def _listed(path: Path) -> ListedRun:
    """The entry of the folder ``path``; for anything wrong with it, one that says what."""
    kind = ""
    try:
        kind = folder_kind(path) or ""
        if kind == "run":
            return _run(RunFolder(path))
        if kind:
            return _sweep(path) if kind == "sweep" else _population(path)
        holds_runs = any(map(folder_kind, folders_in(path)))
    except (LMError, OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        message = " ".join(str(error).split())
        known = isinstance(error, LMError)
        note = message if known else f"{path}: damaged ({type(error).__name__}: {message})"
        return ListedRun(path, kind, _date(path), state="damaged", note=note)
    note = f"{path}: no run, sweep or population"
    if holds_runs:
        note += f", but it holds runs: mlpkern runs {shlex.quote(str(path))}"
    return ListedRun(path, "", _date(path), state="foreign", note=note)


def _run(run: RunFolder) -> ListedRun:
    begun = run.checkpoint.is_file()
    header = read_settings(run.checkpoint) if begun else read_record(run.config)
    with named(run.checkpoint if begun else run.config):
        config = TrainConfig.from_json(header["config"])
        step, words = int(header.get("step", 0)), _words(header)
    _, dev = read_losses(run, step)
    state: State = "interrupted" if dev is None else "finished"
    again = f"go on with: mlpkern train --resume {shlex.quote(str(run.path))}"
    note = "" if dev is not None else f"{run.path}: interrupted; {again}"
    if not begun:
        note = f"{run.path}: stopped before its first checkpoint"
    if holder := holder_of(run.path):
        state, note = "running", f"{run.path}: {holder}"
    if dev is None:
        dev = next(
            (r.dev_loss for r in reversed(read_log(run.log)) if r.dev_loss is not None), None
        )
    best = read_best(run.best).dev_loss if run.best.is_file() else dev
    preset, settings = beyond_preset(config)
    date = _date(run.checkpoint if begun else run.config)
    return ListedRun(
        run.path, "run", date, words, preset, settings, step, config.steps, dev, best, state, note
    )


def _sweep(path: Path) -> ListedRun:
    """A sweep, from its table and the record of its best run."""
    best, date = RunFolder(path / "best"), _date(path / JOURNAL)
    words = _words(read_record(best.config)) if best.config.is_file() else ""
    if not (path / TRIALS).is_file():
        return ListedRun(path, "sweep", date, words)
    columns, rows = _table(path / TRIALS)
    losses = [float(row["dev_loss"]) for row in rows if row["state"] == "complete"]
    return ListedRun(
        path, "sweep", date, words, settings={"over": " ".join(columns[4:])}, step=len(rows),
        best_dev=min(losses, default=None),
    )  # fmt: skip


def _population(path: Path) -> ListedRun:
    """A population, from its record and its table."""
    folder = PopulationFolder(path)
    record, varying = PopulationRecord.read(folder.record), {}
    rows = _table(folder.results)[1] if folder.results.is_file() else []
    preset, settings = beyond_preset(record.configs[0])
    if names := record.varying():
        settings = {name: text for name, text in settings.items() if name not in names}
        varying = {"over": " ".join(names)}
    state: State = "finished" if len(rows) == len(record.configs) else "interrupted"
    again = f"go on with: mlpkern population {shlex.quote(str(path))}"
    note = f"{path}: interrupted; {again}" if state == "interrupted" else ""
    if holder := holder_of(path):
        state, note = "running", f"{path}: {holder}"
    date = max(_date(folder.record), _date(folder.results))
    return ListedRun(
        path, "population", date, _words({"data": record.data}), preset, settings | varying,
        len(rows), len(record.configs), None,
        min((float(row["best_dev_loss"]) for row in rows), default=None), state, note,
    )  # fmt: skip


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines, strict=True)
        return list(table.fieldnames or []), list(table)


def beyond_preset(config: TrainConfig) -> tuple[str, dict[str, str]]:
    """The preset from which ``config`` differs in the fewest settings, and these: name -> value.

    The number of steps and the intervals of logs, dev losses and checkpoints do not count.

    >>> beyond_preset(TrainConfig(hidden=(100,), seed=3))
    ('quick', {'hidden': '100', 'seed': '3'})
    """
    left_out = {"steps", *settings_of("on the way")}
    steps, found = config.steps, {}
    for name, preset in PRESETS.items():
        found[name] = {
            one: setting_text(getattr(config, one))
            for one in SETTINGS
            if one not in left_out and _value(config, one, steps) != _value(preset, one, steps)
        }
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


def _value(config: TrainConfig, name: str, steps: int) -> Any:
    """A setting, with places in a run of ``steps`` steps in place of shares of the run."""
    value = getattr(config, name)
    if name == "lr":
        return [(step_at(place, steps), rate) for place, rate in value]
    return step_at(value, steps) if name == "warmup" else value


def _words(record: dict[str, Any]) -> str:
    return Path(str(record["data"].get("source", ""))).name


def _date(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _steps(run: ListedRun) -> str:
    if run.step is None:
        return "-"
    unit = {"sweep": " trials", "population": " models"}.get(run.kind, "")
    left = "" if run.steps in (None, run.step) else f"/{run.steps}"
    return f"{run.step}{left}{unit}"


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"
