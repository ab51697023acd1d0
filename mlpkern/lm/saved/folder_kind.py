"""What a folder holds, known by the names of its files: a run, a sweep or a population."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mlpkern.lm.saved.run_folder import RunFolder

JOURNAL, TRIALS = "study.journal", "trials.csv"  # of a sweep
POPULATION, RESULTS = "population.json", "results.csv"  # of a population

Kind = Literal["run", "sweep", "population"]


def folder_kind(path: Path) -> Kind | None:
    """What the folder ``path`` holds; None for anything else, also for a file."""
    if (path / JOURNAL).is_file():
        return "sweep"
    if (path / POPULATION).is_file():
        return "population"
    run = RunFolder(path)
    return "run" if run.checkpoint.is_file() or run.config.is_file() else None


def folders_in(path: Path) -> list[Path]:
    """The folders in the folder ``path`` by name, without hidden ones."""
    return sorted(one for one in path.iterdir() if one.is_dir() and one.name[0] != ".")
