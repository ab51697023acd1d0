"""The result of a configuration in a population: the last model, and the best."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.saved.checkpoint import Checkpoint, save_checkpoint
from mlpkern.lm.saved.log import LogRow, write_log
from mlpkern.lm.saved.records import write_config, write_summary
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.evaluation import Metrics, evaluate, sampled
from mlpkern.lm.words.vocab import Vocab


@dataclass(frozen=True)
class BestModel:
    """A model and its metrics on dev.

    Attributes:
        state: the state from which a trainer can continue
        dev: its metrics on dev
    """

    state: TrainState
    dev: Metrics

    @property
    def step(self) -> int:
        """The steps that it was trained for."""
        return self.state.step

    @property
    def model(self) -> MLPLanguageModel:
        """The model."""
        return self.state.model


@dataclass(frozen=True)
class Trained:
    """A configuration after its run, or after a part of it.

    Attributes:
        losses: (points,) float32: the mean loss of every ``every`` steps, of fewer at the end
        stopped: the step whose loss was not finite, at which this model stopped; None: no such
            step. ``losses`` are nan from there on, and ``model`` is the one before that step
        state: the state from which a trainer can continue; its model is ``model``, its step is
            below ``config.steps`` if patience has ended the run
        best: the model with the lowest dev loss; the last model if that is the lowest, or if no dev
            losses were taken during the run
        diverged: why it counts as diverged (divergence.py); None: it does not
        seconds: its share of the time of training: that of each call, divided by its models
        vocab: the vocabulary of the words
        data: the record of the words, for a checkpoint
    """

    config: TrainConfig
    model: MLPLanguageModel
    losses: Tensor
    every: int
    dev: Metrics
    stopped: int | None
    state: TrainState
    best: BestModel
    diverged: str | None
    seconds: float
    vocab: Vocab
    data: dict[str, Any] = field(repr=False)

    def save(self, run: str | Path, *, force: bool = False) -> RunFolder:
        """Writes the run folder ``run``, for all commands that take one and for `load_model`.

        Its log holds the loss curve. ``force``: replaces a run that is there. Raises as
        `RunFolder.check_free`; WriteError, and FolderInUseError if another process writes there.
        """
        folder = RunFolder.check_free(run, force=force)
        with folder.lock():
            RunFolder.check_free(run, force=force)
            self.write(folder)
        return folder

    def write(self, run: RunFolder, **more: Any) -> None:
        """Writes the files of ``run``, whose lock the caller holds; ``more``: for config.json.

        One rename replaces the checkpoint of an earlier run; if that fails (WriteError), the
        earlier run is unchanged but for its best model.
        """
        state, best, device = self.state, self.best, self.model.device
        train = evaluate(self.model, sampled(state.train, self.model.vocab_size))
        run.best.unlink(missing_ok=True)  # of an earlier run
        save_checkpoint(run.checkpoint, self._checkpoint(state))
        run.remove_earlier()
        if best.state is not state:
            save_checkpoint(run.best, self._checkpoint(best.state, dev_loss=best.dev.loss))
        write_log(run.log, self.log_rows())
        write_config(
            run, self.config, data=self.data, engine="run", kernels=self.model.kernels,
            device=device, **more,
        )  # fmt: skip
        write_summary(
            run, steps=state.step, seconds=self.seconds, engine="run",
            train={**dataclasses.asdict(train), "of": len(state.train)},
            dev=dataclasses.asdict(self.dev),
            best={"step": best.step, "dev_loss": best.dev.loss},
            diverged=self.diverged is not None,
        )  # fmt: skip

    def log_rows(self) -> list[LogRow]:
        """The loss curve as rows of a log, without losses that are not finite. The seconds are
        spread evenly over the steps; dev losses are those of the best model and the last."""
        done, rows = self.state.step, []
        dev = {self.best.step: self.best.dev.loss, done: self.dev.loss}
        losses = self.losses.tolist()
        points = _points(self.config, self.every, len(losses))
        for (step, lr), loss in zip(points, losses, strict=True):
            if not math.isfinite(loss):
                break
            rows.append(LogRow(step, lr, loss, dev.get(step), self.seconds * step / done))
        return rows

    def _checkpoint(self, state: TrainState, **more: Any) -> Checkpoint:
        return Checkpoint.of(
            state,
            vocab=self.vocab,
            seconds=self.seconds * state.step / max(1, self.state.step),
            engine="run",
            data=self.data,
            **more,
        )


def _points(config: TrainConfig, every: int, count: int) -> list[tuple[int, float]]:
    """The last step of each point of a curve, and its learning rate."""
    return _points_of(dataclasses.replace(config, seed=0), every, count)


@functools.lru_cache(maxsize=1_000)
def _points_of(config: TrainConfig, every: int, count: int) -> list[tuple[int, float]]:
    ends = [min(k * every, config.steps) for k in range(1, count + 1)]
    return [(end, config.learning_rates(end - 1, 1).item()) for end in ends]
