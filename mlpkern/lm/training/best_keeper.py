"""Keeps the best model of a run: in the folder of the run, or in memory without one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from mlpkern.lm.errors import CheckpointError, ConfigError
from mlpkern.lm.saved.best import Best
from mlpkern.lm.saved.checkpoint import Checkpoint, load_checkpoint
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.saved.run_writer import RunWriter


class BestKeeper:
    """Counts dev losses, and keeps the model with the lowest.

    Attributes:
        best: the lowest dev loss so far
        is_lost: whether dev losses were taken, but the model of the lowest was not kept; the best
            known model is then the one that the run continues with
    """

    def __init__(self, run: RunFolder | None, writer: RunWriter) -> None:
        self.best = Best()
        self.is_lost = False
        self._run, self._writer = run, writer
        self._parameters: dict[str, Tensor] = {}  # if there is no folder

    def find(self, checkpoint: Checkpoint, patience: int) -> None:
        """Finds the best of a run that continues from ``checkpoint``. If ``patience`` had ended the
        run, it counts from 0 again."""
        config = checkpoint.config
        # at step 0 a best in the folder is that of an earlier run, left by a crash
        found = self._kept() if checkpoint.step else None
        if found:
            self.best = Best(found.step, math.inf if found.dev_loss is None else found.dev_loss)
            if not 0 < patience <= checkpoint.waited:
                self.best.waited = checkpoint.waited
        else:
            due = 0 < config.eval_interval <= checkpoint.step
            self.is_lost = due or checkpoint.step >= config.steps

    def _kept(self) -> Checkpoint | None:
        """The best in the folder, or None; RuntimeWarning if it is damaged, as by a power cut."""
        if not self._run or not self._run.best.is_file():
            return None
        try:
            return load_checkpoint(self._run.best)
        except CheckpointError as error:
            warnings.warn(
                f"{error}; the run goes on, and keeps the best from here on",
                RuntimeWarning,
                stacklevel=4,
            )
            return None

    def take(self, step: int, dev_loss: float, checkpoint: Callable[[float], Checkpoint]) -> None:
        """Counts the dev loss at ``step``; if it is the lowest, keeps ``checkpoint(dev_loss)``."""
        before = replace(self.best, waited=0)
        self.is_lost = False
        if not self.best.take(step, dev_loss):
            return
        made = checkpoint(dev_loss)
        if not self._run:
            self._parameters = {name: p.clone() for name, p in made.parameters.items()}
        elif not self._writer.save_best(made):
            self.best = before

    def parameters(self) -> dict[str, Tensor]:
        """The ``state_dict`` of the best model; ConfigError before the first dev loss."""
        if self.best.step is None:
            raise ConfigError("best_model: no dev loss has been taken yet")
        return load_checkpoint(self._run.best).parameters if self._run else self._parameters
