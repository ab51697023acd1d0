"""When a finished run counts as diverged although its loss is a finite number.

Its train loss and its dev loss must both be far worse than what takes no training at all: a uniform
guess of all V symbols, whose loss is ln V, and the untrained model of the same settings. The second
of them is for the init "lecture", which begins far above ln V, so that a short run may well end
there. Both splits, because an overfit model has a dev loss as large, but a low train loss. The
losses are of whole splits, without dropout and smoothing.

Far worse is one nat, and 1000 / (steps * N) nats more: the first steps of small batches may go up
before they go down.
"""

from __future__ import annotations

import math

from mlpkern.lm.model.state import TrainState, initial_model
from mlpkern.lm.training.evaluation import evaluate

__all__ = ["divergence", "margin"]

MARGIN = 1.0  # nats: a probability of the right symbol e times as small
FEW_ROWS = 1_000.0  # training rows seen, at which the margin is twice as wide


def margin(rows: int) -> float:
    """How far above what no training reaches the loss is called diverged, after so many rows."""
    return MARGIN + FEW_ROWS / max(1, rows)


def divergence(state: TrainState, dev_loss: float | None = None) -> str | None:
    """Why the run that ended at ``state`` counts as diverged; None: it does not.

    ``dev_loss``: the loss of its model over the dev split, where there is one. Where that is low,
    as it is in any good run, nothing is evaluated.
    """
    model, config = state.model, state.config
    room = margin(state.step * config.batch_size)
    guess = math.log(model.vocab_size)
    if dev_loss is not None and dev_loss <= guess + room:
        return None
    loss = evaluate(model, state.train).loss
    if loss <= guess + room:
        return None
    untrained = initial_model(config, model.vocab_size, kernels=model.kernels).to(model.device)
    before = evaluate(untrained, state.train).loss
    if loss <= before + room:
        return None
    return (
        f"diverged: the train loss {loss:.4g} is worse than that of a uniform guess, {guess:.4g}, "
        f"and than the {before:.4g} before the first step; a smaller learning rate usually helps"
    )
