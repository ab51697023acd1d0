"""The folder of a sweep: its files, and how the best run is saved.

study.journal   the study, for Optuna and its dashboard
trials.csv      every trial with its dev loss
curves.csv      the loss curve of every trial
tensorboard/    a run of TensorBoard for every trial, if asked for
history.png     dev losses in the order of the trials
parallel.png    every trial as a line through its settings
best/           the best run, for `sample`, `evaluate` and `train --resume`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpkern.lm.atomic_write import csv_text, write_bytes
from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.saved.folder_kind import JOURNAL, TRIALS
from mlpkern.lm.saved.folder_lock import FolderLock
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.search.curves import TrialCurve, add_curves
from mlpkern.lm.words.data import Dataset

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LOCK_SECONDS = 10.0  # more than another process of the sweep takes to save its results


@dataclass(frozen=True)
class SweepFolder:
    """The paths of a sweep."""

    path: Path

    @property
    def journal(self) -> Path:
        """The study of Optuna, appended to by every process."""
        return self.path / JOURNAL

    @property
    def table(self) -> Path:
        """The table of all trials."""
        return self.path / TRIALS

    @property
    def curves(self) -> Path:
        """The loss curves of all trials."""
        return self.path / "curves.csv"

    def events(self, number: int) -> Path:
        """The run of TensorBoard of trial ``number``."""
        return self.path / "tensorboard" / f"trial-{number}"

    @property
    def best(self) -> RunFolder:
        """The run of the best trial."""
        return RunFolder(self.path / "best")

    @classmethod
    def open(cls, path: str | Path) -> SweepFolder:
        """The folder of a sweep, new or existing; CheckpointError for any other folder."""
        folder = cls(Path(path))
        if folder.path.exists() and not folder.path.is_dir():
            raise CheckpointError(f"{folder.path}: exists and is not a folder")
        if folder.path.is_dir() and any(folder.path.iterdir()) and not folder.journal.exists():
            raise CheckpointError(f"{folder.path}: is not empty and not the folder of a sweep")
        return folder

    def save_tables(
        self,
        trials: Callable[[], list[FrozenTrial]],
        names: list[str],
        curves: Sequence[TrialCurve],
    ) -> None:
        """Writes trials.csv, and adds ``curves`` to curves.csv.

        Args:
            trials: gives all trials with a dev loss; called when no other process writes here.
            names: the searched settings.

        WriteError if one of them cannot be written; FolderInUseError if another process does not
        come to its end.
        """
        with FolderLock(self.path, wait=LOCK_SECONDS):
            write_bytes(self.table, trials_csv(trials(), names).encode())
            if curves:
                add_curves(self.curves, curves)

    def save_best(
        self, trained: Trained, number: int, dataset: Dataset, data: dict[str, Any], seconds: float
    ) -> None:
        """Writes the run of trial ``number`` to ``best``, whose lock the caller holds.

        One rename replaces the earlier checkpoint, see `Trained.write`. ``seconds``: the training
        time of the batch of the trial.
        """
        own = replace(trained, vocab=dataset.vocab, data=data, seconds=seconds)
        own.write(self.best, trial=number)


def trials_csv(trials: list[FrozenTrial], names: list[str]) -> str:
    """CSV with the columns trial, state, steps, dev_loss, and the searched settings ``names``."""
    rows: list[list[Any]] = [["trial", "state", "steps", "dev_loss", *names]]
    for trial in trials:
        step, loss = max(trial.intermediate_values.items())
        params = [trial.params[name] for name in names]
        rows.append([trial.number, trial.state.name.lower(), step, f"{loss:.6f}", *params])
    return csv_text(rows)
