"""The result of a configuration in a population: the last model, and the best."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

import mlpkern
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.saved.best import Best
from mlpkern.lm.training.evaluation import Metrics


@dataclass(frozen=True)
class BestModel:
    """A model, the steps it was trained for, and its metrics on dev."""

    step: int
    dev: Metrics
    model: MLPLanguageModel


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
    """

    config: TrainConfig
    model: MLPLanguageModel
    losses: Tensor
    every: int
    dev: Metrics
    stopped: int | None
    state: TrainState
    best: BestModel
    diverged: str | None = None


class KeptBest(Best):
    """The lowest dev loss of a model, with the parameters that had it."""

    _dev: Metrics
    _params: mlpkern.MLPParams | None = None

    def keep(self, dev: Metrics, params: mlpkern.MLPParams) -> None:
        """Copies ``params``, whose dev loss has just been the lowest."""
        self._dev, self._params = dev, params.clone()

    def model(self, state: TrainState, dev: Metrics) -> BestModel:
        """The best model; the one of ``state``, with the metrics ``dev``, if the last is best."""
        if self.step is None or self._params is None or self.step == state.step:
            return BestModel(state.step, dev, state.model)
        model = copy.deepcopy(state.model)
        copy_into(model, self._params)
        return BestModel(self.step, self._dev, model)


def copy_into(model: MLPLanguageModel, params: mlpkern.MLPParams) -> None:
    """Copies ``params`` into the parameters of ``model``."""
    with torch.no_grad():
        own = mlpkern.MLPParams.from_module(model).tensors()
        for ours, theirs in zip(own, params.tensors(), strict=True):
            ours.copy_(theirs)
