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

import torch
from torch import Tensor

from mlpkern.lm.model.schedule import Place, Stages, step_at


def learning_rates(
    lr: Stages, schedule: str, warmup: Place, total: int, first: int, steps: int
) -> Tensor:
    """The rates of ``steps`` steps, beginning with step ``first``, of a run of ``total`` steps.

    Returns (steps,) float64 on the CPU. A step's rate has the same bits in every call.
    """
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
    rates = torch.empty(steps, dtype=torch.float64, device="cpu")
    for place, value in lr:
        rates[max(0, step_at(place, total) - first) :] = value  # a later entry overwrites the rest
    return rates
