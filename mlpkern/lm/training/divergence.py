"""When a run has diverged: at a loss that is not finite, or with finite losses far too high.

Far too high: both the train and the dev loss exceed those of two models without any training, by
more than a margin. One is a uniform guess among all V symbols, with the loss ln V. The other is the
untrained model of the same settings: with init "lecture" it begins far above ln V, and a short run
may well end there. The train loss counts too, because an overfit model has a dev loss as high. The
losses are those of whole splits, without dropout and smoothing.

The margin is 1 + 1000 / (steps * N) nats: the first steps of small batches may raise the loss
before they lower it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlpkern.lm.errors import NonFiniteLossError
from mlpkern.lm.model.state import TrainState, initial_model
from mlpkern.lm.training.evaluation import evaluate

MARGIN = 1.0  # nats: the probability of the right symbol is e times smaller
FEW_ROWS = 1_000.0  # training rows seen, at which the margin is twice as wide


ADVICE = "a smaller learning rate usually helps"


def first_not_finite(losses: Tensor) -> int | None:
    """The place of the first of ``losses`` (S,) that is not finite, None where all are."""
    bad = (~torch.isfinite(losses)).nonzero()
    return int(bad[0]) if len(bad) else None


def not_finite(what: str, step: int) -> NonFiniteLossError:
    """The error for ``what``, which is not finite at ``step``."""
    return NonFiniteLossError(f"step {step}: {what}; {ADVICE}", step)


def margin(rows: int) -> float:
    """By how many nats a loss after so many training rows may exceed one without training."""
    return MARGIN + FEW_ROWS / max(1, rows)


def divergence(state: TrainState, dev_loss: float | None = None) -> str | None:
    """Why the run that ended at ``state`` counts as diverged; None: it does not.

    ``dev_loss``: the loss of its model over the dev split, if known. Where that is low, as in any
    good run, nothing is evaluated.
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
        f"and than the {before:.4g} before the first step; {ADVICE}"
    )
