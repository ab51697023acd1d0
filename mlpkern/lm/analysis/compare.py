"""Several runs side by side: the settings in which they differ, and their losses.

>>> from mlpkern.lm.model.config import TrainConfig
>>> differing([TrainConfig(hidden=(100,)), TrainConfig(hidden=(300, 50), seed=1)])
{'hidden': ['100', '300,50'], 'seed': ['0', '1']}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpkern.lm.analysis.text_table import aligned
from mlpkern.lm.arguments import list_of
from mlpkern.lm.atomic_write import csv_text
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import SETTINGS, TrainConfig, settings_of
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.saved.best import Best
from mlpkern.lm.saved.checkpoint import Checkpoint, load_checkpoint, read_best
from mlpkern.lm.saved.folder_kind import folder_kind, folders_in
from mlpkern.lm.saved.log import LogRow, read_log
from mlpkern.lm.saved.records import read_losses
from mlpkern.lm.saved.run_folder import RunFolder

MOST_NAMED = 4  # settings in a title


@dataclass(frozen=True)
class ComparedRun:
    """A run in a comparison.

    Attributes:
        name: the name of the folder, or its path if two have the same name
        step: steps done
        seconds: time of these steps
        ended: whether it has done all of its steps
        train: loss over the split or a sample of it; None if not taken, as in an unfinished run
        dev: loss over the split; for an unfinished run the last one of its log, if any
        best: the lowest dev loss and its step, if the run kept that model
        rows: the log
    """

    name: str
    config: TrainConfig
    step: int
    seconds: float
    engine: str
    ended: bool
    train: float | None
    dev: float | None
    best: Best | None
    rows: Sequence[LogRow]


@dataclass(frozen=True)
class Comparison:
    """Several runs.

    Attributes:
        differences: setting -> its value in each run, for settings that differ
        same_words: whether all were trained on the same words, split the same way
        source: where these came from; empty if not the same
    """

    runs: list[ComparedRun]
    differences: dict[str, list[str]]
    same_words: bool
    source: str = ""

    @property
    def title(self) -> str:
        """What is compared, in a line for a picture."""
        names = [name.replace("_", " ") for name in self.differences]
        if len(names) > MOST_NAMED:
            names[MOST_NAMED:] = [f"{len(names) - MOST_NAMED} more settings"]
        differing = f"differing in {', '.join(names)}" if names else "of the same settings"
        return f"{len(self.runs)} runs{f' on {self.source}' * bool(self.source)}, {differing}"

    def to_csv(self) -> str:
        """A line for each run: losses, steps, seconds, engine, and the settings that differ.

        A loss that is not known is empty; ``dev`` of a run that has not ended (``ended`` 0) is the
        last one of its log.
        """
        heads = ["run", "ended", "train", "dev", "best_dev", "best_step", "steps", "seconds",
                 "engine", *self.differences]  # fmt: skip
        rows: list[list[Any]] = [heads]
        for i, run in enumerate(self.runs):
            best = [None, None] if run.best is None else [run.best.dev_loss, run.best.step]
            own = [values[i] for values in self.differences.values()]
            rows.append(
                [run.name, int(run.ended), run.train, run.dev, *best, run.step, run.seconds,
                 run.engine, *own]
            )  # fmt: skip
        return csv_text(rows)

    def to_text(self) -> str:
        """A table with a line for each run, and notes on how to read it."""
        early = any(run.best and run.best.step != run.step for run in self.runs)
        bests = ["best dev", "at step"] if early else []
        heads = ["run", "train", "dev", *bests, "steps", "seconds", "engine", *self.differences]
        lines = [heads]
        for i, run in enumerate(self.runs):
            own = [values[i] for values in self.differences.values()]
            dev = _loss(run.dev) + ("" if run.ended or run.dev is None else "*")
            if early:
                best = run.best or Best()
                step = "-" if best.step is None else str(best.step)
                bests = [_loss(best.dev_loss if run.best else None), step]
            lines.append(
                [run.name, _loss(run.train), dev, *bests, str(run.step), f"{run.seconds:.1f}",
                 run.engine, *own]
            )  # fmt: skip
        text = aligned(lines)
        if any(not run.ended and run.dev is not None for run in self.runs):
            text.append("* the last dev loss of the log of a run that has not ended")
        if not self.same_words:
            text.append("The words or their split are not the same: the losses do not compare.")
        return "\n".join(text)


def compare(runs: Sequence[str | Path]) -> Comparison:
    """The comparison of the runs in the folders ``runs``, two or more, in the order given.

    CheckpointError for a folder that is not a run folder or has a damaged file.
    """
    runs = list_of("compare", "runs", runs, "two run folders or more")
    if len(runs) < 2:
        raise ConfigError(f"compare needs two runs or more, got {len(runs)}")
    checkpoints = [load_checkpoint(run, checkpoint="last") for run in runs]
    folders = [RunFolder.holding(run) for run in runs]
    names = [folder.path.resolve().name for folder in folders]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    names = [
        str(folder.path) if name in repeated else name
        for name, folder in zip(names, folders, strict=True)
    ]
    words = {(c.data.get("digest"), c.config.split_seed) for c in checkpoints}
    sources = {Path(str(c.data.get("source", ""))).name for c in checkpoints}
    return Comparison(
        [_read(*parts) for parts in zip(names, folders, checkpoints, strict=True)],
        differing([checkpoint.config for checkpoint in checkpoints]),
        len(words) == 1,
        sources.pop() if len(sources) == len(words) == 1 else "",
    )


def runs_among(paths: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """The runs among ``paths`` and in the folders of runs among them, and a line for each path that
    was left out: sweeps, populations, runs without a checkpoint, and what is something else.

    What does not exist counts as a run, so that the next step names it in an error.
    """
    runs: list[Path] = []
    left_out: list[str] = []

    def take(path: Path, inside: bool) -> None:
        kind = folder_kind(path)
        run = RunFolder(path)
        if kind == "run" and not run.checkpoint.is_file():
            left_out.append(f"{path}: the run stopped before its first checkpoint, left out")
        elif kind == "run" or not path.exists() or path.suffix == run.checkpoint.suffix:
            runs.append(path)
        elif kind is not None:
            best = RunFolder(path / "best")
            named = f"; its best run is {best.path}" if best.checkpoint.is_file() else ""
            left_out.append(f"{path}: a {kind}, left out{named}")
        elif not inside and path.is_dir() and any(map(folder_kind, inner := folders_in(path))):
            for one in inner:
                take(one, True)
        else:
            left_out.append(f"{path}: not a run, left out")

    for path in map(Path, paths):
        take(path, False)
    return runs, left_out


def differing(configs: Sequence[TrainConfig]) -> dict[str, list[str]]:
    """Setting -> its values, for the settings in which ``configs`` differ; without the number of
    steps and the intervals of logs, dev losses and checkpoints."""
    left_out = {"steps", *settings_of("on the way")}
    names = [name for name in SETTINGS if name not in left_out]
    values = {name: [setting_text(getattr(config, name)) for config in configs] for name in names}
    return {name: texts for name, texts in values.items() if len(set(texts)) > 1}


def _read(name: str, folder: RunFolder, checkpoint: Checkpoint) -> ComparedRun:
    rows = read_log(folder.log)
    train, dev = read_losses(folder, checkpoint.step)
    ended = dev is not None
    if not ended:
        dev = next((row.dev_loss for row in reversed(rows) if row.dev_loss is not None), None)
    best = read_best(folder.best) if folder.best.is_file() else None
    return ComparedRun(
        name, checkpoint.config, checkpoint.step, checkpoint.seconds, checkpoint.engine, ended,
        train, dev, best, rows,
    )  # fmt: skip


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"
