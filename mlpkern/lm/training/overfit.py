"""The sanity check of the lecture: a model must be able to overfit a single batch.

Its loss then approaches a floor above 0 if two rows have the same context and different targets:
no model can be sure of both. With n(c) rows of context c, n(c, t) of them with target t, the lowest
possible mean loss over N rows is the conditional entropy of the batch:

    floor = -1/N * sum over (c, t) of  n(c, t) * log(n(c, t) / n(c))

Source: Karpathy, "Building makemore part 2: MLP", "implementing the training loop, overfitting one
batch".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mlpkern.lm.arguments import as_device, check_kind
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.state import TrainState
from mlpkern.lm.training.divergence import divergence, first_not_finite, not_finite
from mlpkern.lm.training.engines import Engine, as_engine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import Dataset, Split

PIECES = 10  # reports during a run


@dataclass(frozen=True)
class Overfit:
    """The result of training on a single batch.

    Attributes:
        batch: its rows, those of the first batch of a training with this seed
        contexts: the number of different contexts in it
        ambiguous: the number of contexts with more than one target
        floor: the lowest possible mean loss
        losses: (S,) float32: the loss before each step
        loss: the loss after the last step, without dropout and smoothing
        diverged: why the run counts as diverged (divergence.py); None: it does not
    """

    batch: Split
    contexts: int
    ambiguous: int
    floor: float
    losses: Tensor
    loss: float
    diverged: str | None


def overfit_batch(
    config: TrainConfig,
    dataset: Dataset,
    engine: Engine | str = "auto",
    *,
    device: torch.device | str = "cpu",
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Overfit:
    """Trains the model of ``config`` for ``config.steps`` steps on the same batch.

    ``report`` is called ten times, with the number of steps done and the loss of the last step.
    NonFiniteLossError if a loss is not finite.

    Examples:
        >>> from mlpkern import lm
        >>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
        >>> config = lm.TrainConfig(steps=1_000, lr=((0, 0.1),))
        >>> result = lm.overfit_batch(config, dataset, lm.RunEngine())
        >>> result.floor < result.loss < result.floor + 0.1
        True
    """
    engine = as_engine(engine, as_device(device))
    start = Trainer.start(config, dataset, engine, device=device).state
    rows = start.draw_batches(1)[0].to(start.train.targets.device)  # (N,)
    batch = Split(start.train.inputs[rows], start.train.targets[rows])
    state = _SameBatch(start.model, batch, config, start.generator)
    parts = []
    while state.step < config.steps:
        first = state.step
        steps = min(max(1, -(-config.steps // PIECES)), config.steps - first)
        losses = engine.run_chunk(state, steps).cpu()
        if (bad := first_not_finite(losses)) is not None:
            raise not_finite(f"the loss is {losses[bad].item()}", first + bad)
        parts.append(losses)
        report(state.step, losses[-1].item())
    floor, contexts, ambiguous = _entropy(batch)
    losses = torch.cat(parts) if parts else torch.empty(0, dtype=torch.float32, device="cpu")
    loss = evaluate(state.model, batch).loss
    return Overfit(batch, contexts, ambiguous, floor, losses, loss, divergence(state))


def lowest_loss(split: Split) -> float:
    """The lowest mean loss that any model can have on the rows of ``split``."""
    check_kind("lowest_loss", "split", split, Split, 'as in dataset.splits["train"]')
    return _entropy(split)[0]


def _entropy(split: Split) -> tuple[float, int, int]:
    """(floor, contexts, contexts with several targets)."""
    _, context = split.inputs.unique(dim=0, return_inverse=True)  # (N,) numbers of contexts
    of_context = context.bincount()
    both = torch.stack([context, split.targets.long()], 1)
    pairs, of_pair = both.unique(dim=0, return_counts=True)
    total = of_context[pairs[:, 0]]  # rows of the pair's context
    floor = -(of_pair * (of_pair.double() / total).log()).sum() / len(split)
    ambiguous = int((pairs[:, 0].bincount() > 1).sum())
    return abs(floor.item()), len(of_context), ambiguous


class _SameBatch(TrainState):
    """A run whose training rows are one batch; every step uses all of them."""

    def draw_batches(self, steps: int) -> Tensor:
        return torch.arange(len(self.train), device="cpu").expand(steps, -1)
