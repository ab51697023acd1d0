"""The learning-rate schedule: stages, times a linear warm-up, times a cosine if asked for.

    rate_s = stage_s * ramp_s * fall_s                                     steps s = 0 … S-1
    ramp_s = min(1, (s + 1) / warmup)                                      1 without a warm-up
    fall_s = (1 + cos(pi * max(0, s - warmup) / (S - warmup))) / 2         "cosine"; "staged": 1

where stage_s is the last entry of ``lr`` that begins at or before s. Source of the cosine:
Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017 (arXiv
1608.03983), equation 5 without restarts; it is torch's ``CosineAnnealingLR(T_max=S - warmup)``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlpkern.lm.errors import ConfigError

SCHEDULES = ("staged", "cosine")
Stages = tuple[tuple[int, float], ...]


def learning_rates(
    lr: Stages, schedule: str, warmup: int, total: int, first: int, steps: int
) -> Tensor:
    """The rates of ``steps`` steps, beginning with step ``first``, of a run of ``total`` steps.

    Returns (steps,) float64 on the CPU. A step's rate has the same bits in every call.
    """
    rates = stage_rates(lr, first, steps)
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


def stage_rates(lr: Stages, first: int, steps: int) -> Tensor:
    """The stages alone: (steps,) float64, CPU."""
    rates = torch.empty(steps, dtype=torch.float64, device="cpu")
    for start, value in lr:
        rates[max(0, start - first) :] = value  # a later entry overwrites the rest
    return rates


def check_stages(lr: Stages) -> None:
    """ConfigError unless the stages begin at step 0, rise, and hold rates of float32."""
    if not lr or lr[0][0] != 0:
        raise ConfigError(f"lr must start at step 0, got {list(lr)}")
    steps = [step for step, _ in lr]
    if steps != sorted(set(steps)):
        raise ConfigError(f"lr must have rising steps, got {steps}")
    for step, value in lr:
        if not 0 <= value <= torch.finfo(torch.float32).max:
            raise ConfigError(
                f"lr from step {step} must be finite and at least 0, in float32, got {value}"
            )
