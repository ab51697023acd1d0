"""One step of the language model in plain torch, with every option of a step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.options import DropoutMasks, TorchOptimizer, moments_of

__all__ = ["StockStep"]


class StockStep:
    """Steps of the run ``state`` by autograd and ``torch.optim``; its momenta are updated.

    Plain SGD is written out in the engine, as the lecture has it.
    """

    def __init__(self, state: TrainState) -> None:
        self._model, self._smoothing = state.model, state.config.label_smoothing
        self._masked = DropoutMasks(state.config)
        moments = moments_of(state.optimizer)
        leaves = list(state.model.parameters())
        self._optimizer = TorchOptimizer(state.config, leaves, moments, state.step)

    def __call__(self, ids: Tensor, targets: Tensor, step: int, lr: float) -> Tensor:
        """The loss () of step ``step`` on ids (N, T) and targets (N,), before its update."""
        model, masked = self._model, self._masked
        x = F.embedding(ids, model.embedding.weight)  # (N, T, D)
        x = masked(step, 0, x.view(x.shape[0], -1))  # (N, T*D)
        for layer, (weight, bias) in enumerate(model.hidden_parameters(), 1):
            x = masked(step, layer, torch.tanh(F.linear(x, weight, bias)))  # (N, H)
        logits = F.linear(x, model.output.weight, model.output.bias)  # (N, V)
        loss = F.cross_entropy(logits, targets, label_smoothing=self._smoothing)
        if loss.requires_grad:
            loss.backward()
        self._optimizer.step(lr)
        return loss.detach()
