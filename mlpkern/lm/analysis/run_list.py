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
from mlpkern.lm.model.config import PRESETS, TrainConfig, settings_of
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.saved.checkpoint import read_best
from mlpkern.lm.saved.checkpoint_file import named, read_settings
from mlpkern.lm.saved.folder_kind import JOURNAL, RESULTS, TRIALS, folder_kind, folders_in
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
        settings: name -> value as on the command line, where it differs from the preset; of a sweep
            "search": what it varies
        step: steps done; of a sweep or a population, models trained
        steps: steps of the whole run; None for others
        dev: loss over the whole dev split at the end; for an unfinished run the last of its log
        best_dev: the lowest dev loss
        state: "finished", "interrupted", "running" (a living process writes there), "damaged", or
            "foreign"; empty for sweeps and populations
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
            return _many(path, kind)
        holds_runs = any(map(folder_kind, folders_in(path)))
    except (LMError, OSError, ValueError, KeyError, TypeError) as error:
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


def _many(path: Path, kind: str) -> ListedRun:
    """A sweep or a population, from its table."""
    best = RunFolder(path / "best")
    words = _words(read_record(best.config)) if best.config.is_file() else ""
    table = path / (TRIALS if kind == "sweep" else RESULTS)
    date = _date(path / (JOURNAL if kind == "sweep" else RESULTS))
    if not table.is_file():
        return ListedRun(path, kind, date, words)
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, strict=True))
    columns = list(rows[0]) if rows else []
    losses = [
        float(row[column])
        for row in rows
        for column in ("dev_loss", "dev", "best_dev")
        if row.get(column) and row.get("state") != "pruned"
    ]
    settings = {}
    if kind == "sweep" and columns:
        settings = {"search": " ".join(columns[columns.index("dev_loss") + 1 :])}
    return ListedRun(
        path, kind, date, words, "", settings, len(rows), None, None, min(losses, default=None)
    )


def beyond_preset(config: TrainConfig) -> tuple[str, dict[str, str]]:
    """The preset from which ``config`` differs in the fewest settings, and these: name -> value.

    The number of steps and the intervals of logs, dev losses and checkpoints do not count.

    >>> beyond_preset(TrainConfig(hidden=(100,), seed=3))
    ('quick', {'hidden': '100', 'seed': '3'})
    """
    left_out = {"steps", *settings_of("on the way")}
    found = {}
    for name, preset in PRESETS.items():
        values, own = config.to_json(), preset.to_json()
        found[name] = {
            setting: setting_text(getattr(config, setting))
            for setting in values
            if setting not in left_out and values[setting] != own[setting]
        }
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


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
    if run.steps is None:
        return f"{run.step} {'trials' if run.kind == 'sweep' else 'models'}"
    return str(run.step) if run.step == run.steps else f"{run.step}/{run.steps}"


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"
