"""A model of a population at one step: what is needed to continue it, or to make its result."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlpkern import MLPParams
from mlpkern.lm.many.loss_curve import Curve, curve_points
from mlpkern.lm.many.trained import BestModel, Trained
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.saved.best import Best
from mlpkern.lm.training.evaluation import Metrics
from mlpkern.lm.words.vocab import Vocab


@dataclass
class KeptBest(Best):
    """The lowest dev loss of a model, with the model that had it, unless it is the last one."""

    kept: BestModel | None = None

    def keep(self, best: BestModel) -> None:
        """Keeps ``best``, whose dev loss has just been the lowest."""
        self.kept = best

    def model(self, state: TrainState, dev: Metrics) -> BestModel:
        """The best model; the one of ``state``, with the metrics ``dev``, if the last is best."""
        if self.kept is None or self.step == state.step:
            return BestModel(state, dev)
        return self.kept


@dataclass(frozen=True)
class Snapshot:
    """A model at one step, which later steps do not change.

    Attributes:
        state: model, optimizer and generator
        best: the lowest dev loss so far
        sums: its loss curve, see `LossCurve.sums`
        every: the steps of a point of the curve
        seconds: its share of the time of training
        dev: its metrics on dev, None if not taken; a model that has ended has them
        diverged: why it counts as diverged; None: it does not, or has no ``dev``
    """

    state: TrainState
    best: KeptBest
    sums: Tensor
    every: int
    seconds: float
    dev: Metrics | None = None
    diverged: str | None = None

    @property
    def stopped(self) -> int | None:
        """The step whose loss was not finite; None: no such step."""
        step = int(self.state.optimizer.stopped)
        return None if step < 0 else step

    @property
    def curve(self) -> Curve:
        """Its loss curve."""
        total = self.state.config.steps
        return Curve(curve_points(self.sums, self.every, self.state.step, total), self.every)

    def trained(self, vocab: Vocab, data: dict[str, Any]) -> Trained:
        """The result of a model with ``dev``; ``data``: the record of its words."""
        state, dev = self.state, self.dev
        assert dev is not None
        return Trained(
            state.config,
            state.model,
            *self.curve,
            dev,
            self.stopped,
            state,
            self.best.model(state, dev),
            self.diverged,
            self.seconds,
            vocab,
            data,
        )


def copied(state: TrainState) -> TrainState:
    """A copy of ``state`` with its own model and generator, which later steps do not change."""
    generator = torch.Generator()
    generator.set_state(state.generator.get_state())
    return dataclasses.replace(state, model=copy.deepcopy(state.model), generator=generator)


def copy_into(params: MLPParams, values: MLPParams) -> None:
    """Copies ``values`` into the tensors of ``params``."""
    with torch.no_grad():
        for ours, theirs in zip(params.tensors(), values.tensors(), strict=True):
            ours.copy_(theirs)
