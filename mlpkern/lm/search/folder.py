"""The folder of a sweep: its files, and how the best run is saved.

study.journal   the study, for Optuna and its dashboard
trials.csv      every trial with its dev loss
history.png     dev losses in the order of the trials
parallel.png    every trial as a line through its settings
best/           the best run, for `sample`, `evaluate` and `train --resume`
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlpkern.lm.atomic_write import csv_text
from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.many.trained import Trained
from mlpkern.lm.saved.checkpoint import Checkpoint, save_checkpoint
from mlpkern.lm.saved.folder_kind import JOURNAL, TRIALS
from mlpkern.lm.saved.log import LogRow, write_log
from mlpkern.lm.saved.records import write_config, write_summary
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.words.data import Dataset

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


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

    def save_best(
        self, trained: Trained, number: int, dataset: Dataset, data: dict[str, Any], seconds: float
    ) -> None:
        """Writes the run of trial ``number`` to ``best``, whose lock the caller holds.

        One rename replaces the earlier checkpoint; if that fails (WriteError), ``best`` is
        unchanged. ``seconds``: the training time of the batch of the trial.
        """
        run, state = self.best, trained.state
        shared = dataset.splits_for(trained.config.block_size)
        train, dev = (evaluate(trained.model, shared[name]) for name in ("train", "dev"))
        checkpoint = Checkpoint.of(
            state,
            vocab=dataset.vocab,
            pending=torch.empty(0, dtype=torch.float32, device="cpu"),
            seconds=seconds,
            engine="run",
            data=data,
        )
        run.best.unlink(missing_ok=True)  # of an earlier trial whose run was continued
        save_checkpoint(run.checkpoint, checkpoint)
        run.remove_earlier()
        write_log(run.log, _log_rows(trained, dev.loss, seconds))
        model = trained.model
        write_config(
            run, trained.config, data=data, engine="run", kernels=model.kernels,
            device=model.device, trial=number,
        )  # fmt: skip
        write_summary(
            run, steps=state.step, seconds=seconds, engine="run", train=asdict(train),
            dev=asdict(dev),
        )  # fmt: skip


def trials_csv(trials: list[FrozenTrial], names: list[str]) -> str:
    """CSV with the columns trial, state, steps, dev_loss, and the searched settings ``names``."""
    rows: list[list[Any]] = [["trial", "state", "steps", "dev_loss", *names]]
    for trial in trials:
        step, loss = max(trial.intermediate_values.items())
        params = [trial.params[name] for name in names]
        rows.append([trial.number, trial.state.name.lower(), step, f"{loss:.6f}", *params])
    return csv_text(rows)


def _log_rows(trained: Trained, dev_loss: float, seconds: float) -> list[LogRow]:
    """The curve as rows of a log; the seconds of the batch are spread evenly over the steps."""
    config, rows = trained.config, []
    for k, loss in enumerate(trained.losses.tolist(), 1):
        step = min(k * trained.every, config.steps)
        last = step == config.steps
        lr = config.learning_rates(step - 1, 1).item()
        at = seconds * step / config.steps
        rows.append(LogRow(step, lr, loss, dev_loss if last else None, at))
    return rows
