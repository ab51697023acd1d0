"""The engine ``stock``: the training loop of the lecture in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.options import dropout_of, torch_optimizer
from mlpkern.lm.words.data import Split
from mlpkern.reference.mlp import Dropout, logits


class StockEngine:
    """The training loop of the lecture in plain torch: the yardstick, free of any of our ops."""

    name = "stock"
    kernels = "stock"

    def __init__(self) -> None:
        self._rows: tuple[Split, Split] | None = None

    @staticmethod
    def unavailable(device: torch.device) -> str | None:
        return None

    def run_chunk(self, state: TrainState, steps: int) -> Tensor:
        rates = state.learning_rates(steps).tolist()
        return stock_steps(state, self._int64_rows(state.train), rates, dropout_of(state.config))

    def _int64_rows(self, train: Split) -> Split:
        """The training rows as the lecture keeps them, converted once a run."""
        if self._rows is None or self._rows[0] is not train:
            self._rows = (train, Split(train.inputs.long(), train.targets.long()))
        return self._rows[1]


def stock_steps(
    state: TrainState, train: Split, rates: Sequence[float], dropout: Callable[[int], Dropout]
) -> Tensor:
    """The losses (S,) of steps at the learning rates (S,); ``dropout``: that of a step's number.

    ``train``: the training rows, int64.
    """
    config, parameters = state.config, list(state.model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    optimizer = torch_optimizer(state, parameters) if config.beyond_plain_sgd() else None
    losses = []
    for lr in rates:
        ix = state.draw_batches(1)[0].to(train.targets.device)  # (N,)
        # forward
        z = logits(parameters, train.inputs[ix], dropout(state.step))  # (N, V)
        loss = F.cross_entropy(z, train.targets[ix], label_smoothing=config.label_smoothing)
        # backward
        for p in trained:
            p.grad = None
        if trained:
            loss.backward()
        # update
        if optimizer:
            optimizer.step(lr)
        else:
            for p in trained:
                p.data += -lr * p.grad  # type: ignore[operator]
        losses.append(loss.detach())
        state.step += 1
    for p in trained:
        p.grad = None
    return torch.stack(losses)
