"""The learning rate of a run, found by short runs.

1. A sweep of growing rates (lr_finder.py) tells where to begin: around its valley.
2. Three rounds of trials, each four times as long as the one before: rates by factors of two train
   side by side with all settings of the run, its schedule shortened in proportion, and are judged
   on dev. Where the best is at an end, the round goes on beyond it. A parabola through the lowest
   dev loss and its neighbors gives the best rate of the round.
3. The best rate falls with the length of the run, about as steps^(-1/4). In a dozen trainings (SGD
   and AdamW, characters and words, 2,000 to 200,000 steps), from an eighth or a quarter of the
   steps to all of them, the exponent was +0.1 to -0.45; for large language models it is -0.32
   (Bjorck et al., "Scaling optimal LR across token horizons", ICLR 2025, arXiv 2409.19913). So the
   rates of a round, and the recommended one, are around the best of the round before, lowered by
   that much.

The last round is the whole run where that costs seconds, else a part of it, at least an eighth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many.lr_finder import LRCurve, lr_finder
from mlpkern.lm.many.population import Population
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.schedule import step_at
from mlpkern.lm.model.state import initial_model
from mlpkern.lm.words.data import Dataset

WORK = 2.5e11  # multiply-adds and additions of all rounds: a few seconds on one core
LEAST = 1 / 8  # share of the run's steps in the last round: then all rounds take half of the run
LONGER = 4  # each round is so many times as long as the one before
ROUNDS = 3
FEWEST = 100  # steps of a round: with fewer, the initial parameters decide
FIRST = range(-1, 4)  # rates of the first round, in factors of two from the valley
AROUND = range(-1, 2)  # of a later round, from the best of the one before
FARTHEST = 12  # factors of two that a round goes beyond its first rates
FALL = -1 / 4  # the best rate goes with this power of the steps


@dataclass(frozen=True)
class Trials:
    """A round: runs of one length, which differ in their rates.

    Attributes:
        steps: of each
        dev: the dev loss by learning rate, rising rates; inf: diverged
        best: the rate with the lowest dev loss, by a parabola over the logarithm of the rate
    """

    steps: int
    dev: dict[float, float]
    best: float


@dataclass(frozen=True)
class FoundLR:
    """A learning rate for a run, and how it was found.

    Attributes:
        recommended: the first rate of the run, to three digits
        config: the settings of the run with this rate: the whole schedule is scaled to it
        curve: the sweep of growing rates
        trials: the rounds, from the shortest to the longest
    """

    recommended: float
    config: TrainConfig
    curve: LRCurve
    trials: tuple[Trials, ...]


def find_lr(
    config: TrainConfig,
    dataset: Dataset,
    *,
    curve: LRCurve | None = None,
    report: Callable[[Trials], None] = lambda trials: None,
) -> FoundLR:
    """The learning rate at which a run of ``config`` should end with the lowest dev loss.

    Found by short runs (found_lr.py), which together take half as long as the run, or seconds.
    The same arguments give the same result.

    Args:
        config: the run. Of ``lr`` only the shape counts: all its rates are scaled together.
        dataset: the words; training runs on its device.
        curve: the sweep that tells where to begin; None: one with the settings of the run, of a
            twentieth of its steps, 100 to 1,000.
        report: called with every round.

    Raises ConfigError for a run without steps, where no rate of the sweep lowers the loss, and
    where every trial diverges.

    Examples:
        >>> from mlpkern import lm
        >>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
        >>> config = lm.TrainConfig(steps=2_000, optimizer="adamw", schedule="cosine")
        >>> found = lm.find_lr(config, dataset)
        >>> 0.001 < found.recommended < 0.1
        True
    """
    curve = curve or first_sweep(config, dataset)
    if curve.valley is None:
        raise ConfigError(
            f"the loss never falls between the learning rates {curve.lrs[0]:g} and "
            f"{curve.lrs[-1]:g} of the sweep"
        )
    rounds: list[Trials] = []
    best, places = curve.valley, FIRST
    for steps in _lengths(config, len(dataset.vocab)):
        center = best * (steps / rounds[-1].steps) ** FALL if rounds else best
        rounds.append(_round(_shortened(config, steps), dataset, center, places))
        best, places = rounds[-1].best, AROUND
        report(rounds[-1])
    rate = float(f"{best * (config.steps / rounds[-1].steps) ** FALL:.3g}")
    return FoundLR(rate, config.with_settings(lr=rate), curve, tuple(rounds))


def first_sweep(
    config: TrainConfig,
    dataset: Dataset,
    *,
    low: float | None = None,
    high: float | None = None,
    sweep_steps: int | None = None,
    seeds: int = 1,
) -> LRCurve:
    """`lr_finder` with the settings of a run, its initial model and batches, and those of the
    ``seeds`` - 1 seeds after its own."""
    if sweep_steps is None:
        sweep_steps = min(1_000, max(100, config.steps // 20))
    for name, value, least in (
        ("steps", config.steps, 1),
        ("seeds", seeds, 1),
        ("sweep_steps", sweep_steps, 2),
    ):
        if value < least:
            raise ConfigError(f"find_lr: {name} must be at least {least}, got {value}")
    train = dataset.splits_for(config.block_size)["train"]
    configs = [replace(config, seed=config.seed + m) for m in range(seeds)]
    models = [initial_model(c, len(dataset.vocab)).to(train.targets.device) for c in configs]
    own = [c.seed for c in configs]
    return lr_finder(models, train, low=low, high=high, steps=sweep_steps, seeds=own, config=config)


def _lengths(config: TrainConfig, vocab_size: int) -> list[int]:
    """The steps of each round."""
    widths = (config.block_size * config.embedding_dim, *config.hidden, vocab_size)
    step = 6 * config.batch_size * sum(a * b for a, b in pairwise(widths))  # forward and backward
    parts = [LONGER**-back for back in reversed(range(ROUNDS))]  # of the last round
    trials = len(FIRST) * parts[0] + len(AROUND) * sum(parts[1:])
    share = min(1.0, max(LEAST, WORK / (trials * step * config.steps)))
    lengths = [max(FEWEST, round(part * share * config.steps)) for part in parts]
    return sorted({min(length, config.steps) for length in lengths})


def _shortened(config: TrainConfig, steps: int) -> TrainConfig:
    """``config`` with ``steps`` steps: every part of the schedule keeps its share of them."""
    share = steps / config.steps
    lr = {round(share * step_at(place, config.steps)): rate for place, rate in config.lr}
    warmup = round(share * step_at(config.warmup, config.steps))
    return replace(
        config, steps=steps, lr=tuple(lr.items()), warmup=warmup, patience=0, eval_every=0
    )


def _round(config: TrainConfig, dataset: Dataset, center: float, places: range) -> Trials:
    """Trials at ``center`` times powers of two, the exponents ``places`` first, then beyond the
    end at which the dev loss is lowest."""
    dev: dict[int, float] = {}
    wanted = list(places)
    while wanted and len(dev) < len(places) + FARTHEST:
        rates = [center * 2.0**place for place in wanted]
        losses = _dev_losses([config.with_settings(lr=rate) for rate in rates], dataset)
        dev |= dict(zip(wanted, losses, strict=True))
        at, first, last = min(dev, key=dev.__getitem__), min(dev), max(dev)
        wanted = [first - 1] if at == first else [last + 1] if at == last else []
    dev = dict(sorted(dev.items()))
    if math.isinf(min(dev.values())):
        raise ConfigError(f"every trial of {config.steps} steps diverged")
    best = center * 2.0 ** _lowest(dev)
    return Trials(config.steps, {center * 2.0**at: loss for at, loss in dev.items()}, best)


def _dev_losses(configs: list[TrainConfig], dataset: Dataset) -> list[float]:
    """The dev loss at the end of each of ``configs``; inf if it is not finite."""
    models = Population(configs, dataset)
    models.advance(1.0)
    losses = [metrics.loss for metrics in models.dev().values()]
    return [loss if math.isfinite(loss) else math.inf for loss in losses]


def _lowest(dev: dict[int, float]) -> float:
    """The place of the lowest value: by the parabola through it and its neighbors."""
    at = min(dev, key=dev.__getitem__)
    left, middle, right = (dev.get(at + d, math.inf) for d in (-1, 0, 1))
    bend = left - 2 * middle + right
    return at + (left - right) / (2 * bend) if 0 < bend < math.inf else float(at)
