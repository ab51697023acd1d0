"""The learning-rate schedule: stages, times a linear warm-up, times a cosine if asked for.

    rate_s = stage_s * ramp_s * fall_s                                     steps s = 0 … S-1
    ramp_s = min(1, (s + 1) / warmup)                                      1 without a warm-up
    fall_s = (1 + cos(pi * max(0, s - warmup) / (S - warmup))) / 2         "cosine"; "staged": 1

where stage_s is the last entry of ``lr`` that begins at or before s. The place where a stage
begins and the length of the warm-up are steps (int) or shares of the run (float below 1). Source of
the cosine: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017
(arXiv 1608.03983), equation 5 without restarts; it is torch's ``CosineAnnealingLR(T_max=S -
warmup)``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlpkern.lm.errors import ConfigError

if TYPE_CHECKING:  # torch takes long to import, and ``mlpkern --help`` needs only the checks
    from torch import Tensor

SCHEDULES = ("staged", "cosine")
LARGEST = (2 - 2**-23) * 2.0**127  # of float32
Place = int | float  # a step, or a share of the steps of a run
Stages = tuple[tuple[Place, float], ...]


def step_at(place: Place, total: int) -> int:
    """The step at ``place`` of a run of ``total`` steps.

    >>> step_at(15, 1_000), step_at(0.75, 1_000)
    (15, 750)
    """
    return round(place * total) if isinstance(place, float) else place


def learning_rates(
    lr: Stages, schedule: str, warmup: Place, total: int, first: int, steps: int
) -> Tensor:
    """The rates of ``steps`` steps, beginning with step ``first``, of a run of ``total`` steps.

    Returns (steps,) float64 on the CPU. A step's rate has the same bits in every call.
    """
    import torch

    warmup = step_at(warmup, total)
    rates = stage_rates(lr, total, first, steps)
    if not warmup and schedule == "staged":
        return rates
    at = torch.arange(first, first + steps, dtype=torch.float64, device="cpu")
    if warmup:
        rates *= ((at + 1) / warmup).clamp(max=1.0)
    if schedule == "cosine":
        passed = (at - warmup).clamp(min=0.0) / max(1, total - warmup)
        # the last bit of torch.cos depends on the place in the tensor, that of math.cos does not
        fall = [0.5 * (1 + math.cos(math.pi * min(1.0, share))) for share in passed.tolist()]
        rates *= torch.tensor(fall, dtype=torch.float64, device="cpu")
    return rates


def stage_rates(lr: Stages, total: int, first: int, steps: int) -> Tensor:
    """The stages alone: (steps,) float64, CPU."""
    import torch

    rates = torch.empty(steps, dtype=torch.float64, device="cpu")
    for place, value in lr:
        rates[max(0, step_at(place, total) - first) :] = value  # a later entry overwrites the rest
    return rates


def check_stages(lr: Stages) -> None:
    """ConfigError unless the stages begin at step 0 and hold rates of float32."""
    if not lr or lr[0][0] != 0:
        raise ConfigError(f"lr must start at step 0, got {list(lr)}")
    for place, value in lr:
        if not 0 <= value <= LARGEST:
            at = place_text(place) if isinstance(place, float) else f"step {place}"
            raise ConfigError(
                f"lr from {at} must be finite and at least 0, in float32, got {value}"
            )
    for kind in (int, float):
        places = [place for place, _ in lr if type(place) is kind]
        if places != sorted(set(places)):
            raise ConfigError(f"lr must have rising steps, got {[place for place, _ in lr]}")


def check_order(lr: Stages, total: int) -> None:
    """ConfigError unless each stage begins at or after the one before it in a run of ``total``."""
    steps = [step_at(place, total) for place, _ in lr]
    if steps != sorted(steps):
        places = [place_text(place) for place, _ in lr]
        raise ConfigError(f"lr must have rising steps, got {places} of {total} steps")


def place_text(place: Place) -> str:
    """A place as the command line takes it.

    >>> place_text(100), place_text(0.75)
    ('100', '75%')
    """
    return f"{100 * place:.6g}%" if isinstance(place, float) else str(place)


def scaled(lr: Stages, rate: float) -> Stages:
    """``lr`` with all rates times one factor, so that the first is ``rate``.

    >>> scaled(((0, 0.1), (0.75, 0.01)), 0.3)
    ((0, 0.3), (0.75, 0.03))
    """
    first = lr[0][1]
    if not first:
        return ((0, rate),)
    # twelve digits, so that a tenth of 0.3 is 0.03; the rate itself keeps all of its own
    return tuple(
        (place, rate if value == first else float(f"{rate * (value / first):.12g}"))
        for place, value in lr
    )
