"""The learning-rate finder: losses while the learning rate grows exponentially, and two points.

    lr_s = low * (high / low)^(s / (S - 1))        one optimizer step each, s = 0 … S-1

The loss stays flat while the rate is too small, then falls, and rises or is no longer finite once
the rate is too large. A few hundred steps cannot tell which rate is best for many thousands;
found_lr.py finds that, beginning from such a sweep. Sources: Smith, "Cyclical learning rates for
training neural networks", WACV 2017 (arXiv 1506.01186), section 3.3, for the sweep and the valley;
fastai, ``fastai/callback/schedule.py``, function ``steep``, for the steepest descent.

Sizes: S steps, M seeds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

import mlpkern
from mlpkern.lm.arguments import check_kind
from mlpkern.lm.atomic_write import csv_text
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many.drawn_batches import drawn_rows
from mlpkern.lm.memory import check_fits
from mlpkern.lm.model.config import TrainConfig, seed_for
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.model.setting import check_seed
from mlpkern.lm.training.divergence import margin
from mlpkern.lm.training.options import common_options, own_options
from mlpkern.lm.words.data import Split
from mlpkern.registry import refusal

STOP_AT = 4.0  # the curve ends above this multiple of its lowest loss so far, as in fastai
# the first and last rate; AdamW's steps are about as long as its rate, whatever the gradient
RANGES = {"sgd": (1e-4, 10.0), "adamw": (1e-5, 1.0)}


@dataclass(frozen=True)
class LRCurve:
    """The losses of a sweep, and two points on them; the best rate of a run is at neither.

    Attributes:
        lrs: (S,) float64: the learning rate of each step
        losses: (M, S): the loss of each seed before each update; nan after a seed's first loss that
            is not finite
        smoothed: (K,) float64, K <= S: the median of the seeds at each step, up to where it exceeds
            four times its lowest value so far or half of the seeds have ended; smoothed twice by a
            centered mean over ``window`` steps (fewer at the ends)
        window: K // 10, made odd
        valley: the learning rate where ``smoothed`` is lowest, the first of equals: Smith's upper
            bound, where progress ends. With AdamW it is far above the best rate of a run. fastai's
            ``valley`` is another point, on the descent: the middle of its longest fall
        steepest: the learning rate before the valley where ``smoothed`` falls fastest per factor of
            learning rate, at steps where the whole window fits (fastai's ``steep``); a few times
            below the valley. Both are None if the loss never falls
        diverged: the number of seeds that had diverged by the end, as expected at too large rates:
            their mean loss over the last twentieth of the steps was not finite, or exceeded both
            ln V and the loss of the first step by the margin of divergence.py
    """

    lrs: Tensor
    losses: Tensor
    smoothed: Tensor
    window: int
    valley: float | None
    steepest: float | None
    diverged: int

    def band(self) -> Tensor:
        """(2, K) float64: the quantiles 0.1 and 0.9 of the seeds at each step, smoothed like
        ``smoothed``. A seed that has ended counts as the worst loss at that step."""
        worst = self.losses.nan_to_num(nan=-torch.inf, posinf=-torch.inf).amax(0)
        losses = torch.where(self.losses.isfinite(), self.losses, worst)[:, : len(self.smoothed)]
        quantiles = [torch.quantile(losses.double(), share, dim=0) for share in (0.1, 0.9)]
        return torch.stack([_smooth(line)[0] for line in quantiles])

    def to_csv(self) -> str:
        """CSV with the columns lr, smoothed, and the loss of each seed; empty where missing."""
        smoothed = [f"{value:.6f}" for value in self.smoothed.tolist()]
        smoothed += [""] * (len(self.lrs) - len(smoothed))
        columns = (self.lrs.tolist(), smoothed, self.losses.T.tolist())
        return csv_text(
            [
                ["lr", "smoothed", *(f"loss_{m}" for m in range(len(self.losses)))],
                *(
                    [f"{lr:.6g}", mean, *("" if math.isnan(x) else f"{x:.6f}" for x in losses)]
                    for lr, mean, losses in zip(*columns, strict=True)
                ),
            ]
        )


def lr_finder(
    model: MLPLanguageModel | Sequence[MLPLanguageModel],
    train: Split,
    *,
    low: float | None = None,
    high: float | None = None,
    steps: int = 1_000,
    batch_size: int | None = None,
    seeds: Sequence[int] = (0,),
    config: TrainConfig | None = None,
) -> LRCurve:
    """Sweeps the learning rate exponentially, for all seeds in one call.

    Args:
        model: the initial model of all seeds, or one model for each seed, all of one shape. They
            are copied, never changed.
        train: the rows that batches are drawn from, on the model's device.
        low: the learning rate of the first step, above 0; by default 1e-4, with AdamW 1e-5.
        high: the learning rate of the last step, above ``low``; by default 10, with AdamW 1.
        steps: S, at least 2.
        batch_size: N, rows of a step, at least 1; by default that of ``config``, else 32.
        seeds: seeds of the batches, which are those of a training with this `TrainConfig.seed`.
        config: its optimizer, momentum, weight decay, dropout, clipping and label smoothing are
            those of the steps; without it they are plain SGD.

    Raises ConfigError for values out of range, and for a backend, named by `mlpkern.use_backend` or
    in the environment, that has no `train_steps`.

    Examples:
        >>> from mlpkern import lm
        >>> dataset = lm.build_dataset(lm.embedded_names(), block_size=3)
        >>> model = lm.MLPLanguageModel(27, 3, 10, 200, init="lecture")
        >>> curve = lm.lr_finder(model, dataset.splits["train"], seeds=range(8))
        >>> f"{curve.valley:.1f}"
        '0.2'
    """
    check_kind("lr_finder", "train", train, Split, 'as in dataset.splits["train"]')
    models = [model] * len(seeds) if isinstance(model, MLPLanguageModel) else list(model)
    for seed in seeds:
        check_seed("seeds", seed)
    if refused := refusal("train_steps", train.targets.device.type):
        raise ConfigError(f"lr_finder: {refused}")
    config = config or TrainConfig()
    first, last = RANGES[config.optimizer]
    low, high = first if low is None else low, last if high is None else high
    batch_size = config.batch_size if batch_size is None else batch_size
    _check(low, high, steps, batch_size, len(seeds), len(models), len(train))
    params = mlpkern.MLPParams.stack([mlpkern.MLPParams.from_module(one) for one in models])
    lrs = low * (high / low) ** torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    stream = [seed_for(seed, "batches") for seed in seeds]  # as in a training with this seed
    batches = drawn_rows(stream, len(train), steps, batch_size).to(train.targets.device)
    with warnings.catch_warnings():  # a seed that diverges is an expected result here
        warnings.filterwarnings("ignore", "train_steps: ", RuntimeWarning)
        losses = mlpkern.train_steps(
            params, train.inputs, train.targets, batches, lrs,
            **common_options(config), **own_options([replace(config, seed=s) for s in seeds]),
        ).cpu()  # fmt: skip
    smoothed, window = _smooth(_median_curve(losses))
    steepest, valley = _suggestions(smoothed, window)
    return LRCurve(
        lrs,
        losses,
        smoothed,
        window,
        None if valley is None else lrs[valley].item(),
        None if steepest is None else lrs[steepest].item(),
        _diverged(losses, math.log(models[0].vocab_size), batch_size),
    )


def _diverged(losses: Tensor, guess: float, batch_size: int) -> int:
    """How many seeds of (M, S) ended far above both a uniform guess and their first loss."""
    seeds, steps = losses.shape
    room = margin(steps * batch_size)
    end = losses[:, -max(1, steps // 20) :].double().mean(1)
    fine = end <= losses[:, 0].double().clamp(min=guess) + room
    return seeds - int(fine.sum())


def _median_curve(losses: Tensor) -> Tensor:
    """The median over the seeds, (M, S) -> (K,) float64, cut where it is too high or not finite.

    The loss of a seed that has ended counts as infinite, so the median is not finite once half of
    them have ended.
    """
    ended = losses.double().nan_to_num(nan=torch.inf).sort(0).values  # (M, S)
    count = len(ended)
    median = (ended[(count - 1) // 2] + ended[count // 2]) / 2  # (S,)
    lowest = median.cummin(0).values
    over = (~median.isfinite() | (median > STOP_AT * lowest)).nonzero()
    return median[: int(over[0])] if len(over) else median


def _smooth(curve: Tensor) -> tuple[Tensor, int]:
    """``curve`` (K,) smoothed twice by a centered mean, and the length of its window."""
    window = max(1, len(curve) // 10) | 1
    if len(curve) == 0:
        return curve, window
    half = window // 2
    counts = F.avg_pool1d(
        F.pad(torch.ones_like(curve)[None], (half, half)), window, stride=1
    )  # the share of each window that is on the curve
    smoothed = curve[None]
    for _ in range(2):
        smoothed = F.avg_pool1d(F.pad(smoothed, (half, half)), window, stride=1) / counts
    return smoothed[0], window


def _suggestions(smoothed: Tensor, window: int) -> tuple[int | None, int | None]:
    """The steps (steepest, valley), see `LRCurve`. Steps are evenly spaced in log(lr)."""
    if len(smoothed) == 0:
        return None, None
    valley = int(smoothed.argmin())
    slopes = smoothed.diff()[window : min(valley, len(smoothed) - window)]
    if len(slopes) == 0 or slopes.min() >= 0:
        return None, None
    return window + int(slopes.argmin()), valley


def _check(
    low: float, high: float, steps: int, batch_size: int, seeds: int, models: int, rows: int
) -> None:
    if not 0 < low < high <= torch.finfo(torch.float32).max:
        raise ConfigError(
            "lr_finder: low and high must be 0 < low < high, both finite in float32, got "
            f"{low} and {high}"
        )
    for name, value, least in (
        ("steps", steps, 2),
        ("batch_size", batch_size, 1),
        ("number of seeds", seeds, 1),
        ("number of training rows", rows, 1),
    ):
        if value < least:
            raise ConfigError(f"lr_finder: {name} must be at least {least}, got {value}")
    batches = f"a sweep of {steps} steps, {batch_size} rows each, {seeds} seeds: the batches"
    check_fits(batches, 8 * steps * batch_size * seeds)
    if models != seeds:
        raise ConfigError(f"lr_finder: expected one model for each of {seeds} seeds, got {models}")
