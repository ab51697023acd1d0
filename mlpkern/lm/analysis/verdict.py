"""A verdict on the losses of a finished run: underfit, overfit or near capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlpkern.lm.analysis.ngram import ngram_name
from mlpkern.lm.saved.log import LogRow

GAP = 0.05  # overfit: dev is above train by more than this share of dev
RISEN = 0.01  # overfit: dev is above its lowest by more than this share
FALLING = 0.005  # underfit: train fell by more than this share over the last tenth of the steps


@dataclass(frozen=True)
class Verdict:
    """``kind``: "overfit", "underfit" or "near capacity"; ``reason``; ``advice``: what next."""

    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}. {self.advice}."


def verdict(
    train: float,
    dev: float,
    rows: Sequence[LogRow],
    *,
    ngrams: Mapping[int, float] | None = None,
    noise: float = 0.0,
) -> Verdict:
    """The first of these that applies to the losses ``train`` and ``dev`` over whole splits.

    1. overfit: dev is more than 5 % above train (as a share of dev), or the last dev loss of the
       log is more than 1 % above its lowest, even if ``dev`` is that of the best model;
    2. underfit: dev is not below the best of ``ngrams``, or the train loss still falls: its mean
       over the last tenth of the log is lower than over the tenth before by more than 0.5 % and by
       more than twice the noise;
    3. near capacity: train and dev agree, the curve is flat, and the model beats the n-grams.

    Args:
        rows: the log.
        ngrams: n -> dev loss of n-grams with no more context than the model.
        noise: standard deviation of the train loss of a log row, due to the choice of batches.

    >>> print(verdict(2.0, 2.5, []))
    overfit: dev is 0.500 (20.0 %) above train. Weight decay, dropout, a smaller model or more \
words close the gap.
    >>> verdict(2.0, 2.05, [], ngrams={2: 2.4}).kind
    'near capacity'
    >>> verdict(2.0, 2.05, [], ngrams={2: 2.4, 3: 2.02}).kind
    'underfit'
    """
    gap = f"{abs(dev - train):.3f} ({100 * abs(dev - train) / dev:.1f} %)"
    if dev - train > GAP * dev:
        return Verdict(
            "overfit",
            f"dev is {gap} above train",
            "Weight decay, dropout, a smaller model or more words close the gap",
        )
    taken = [(row.dev_loss, row.step) for row in rows if row.dev_loss is not None]
    lowest, step = min(taken, default=(dev, 0))
    last = taken[-1][0] if taken else dev
    if last > (1 + RISEN) * lowest:
        return Verdict(
            "overfit",
            f"dev was {lowest:.4f} at step {step} and has risen to {last:.4f} since",
            "Fewer steps, a smaller learning rate, weight decay or dropout keep it down",
        )
    best = min(ngrams or {}, key=lambda n: (ngrams or {})[n], default=None)
    if ngrams and best is not None and dev >= ngrams[best]:
        return Verdict(
            "underfit",
            f"counting reaches dev {ngrams[best]:.4f} ({ngram_name(best)}) with no more context, "
            f"the model {dev:.4f}, and train is only {gap} away",
            "A larger hidden layer or embedding, more steps or a better learning rate go lower",
        )
    if fall := still_falling(rows, noise):
        return Verdict(
            "underfit",
            f"the train loss still falls, by {fall:.3f} over the last tenth of the steps",
            "Train longer",
        )
    return Verdict(
        "near capacity",
        f"train and dev are {gap} apart and the curve is flat",
        "A larger hidden layer, embedding or context can go lower, more of the same steps hardly",
    )


def still_falling(rows: Sequence[LogRow], noise: float = 0.0) -> float:
    """By how much the train loss fell over the last tenth of the log; 0.0 if that may be noise.

    >>> rows = [LogRow(step, 0.1, 3.0 - 0.001 * step, None, 0.0) for step in range(100, 1100, 100)]
    >>> round(still_falling(rows), 3), still_falling(rows, noise=0.1)
    (0.1, 0.0)
    """
    width = max(1, len(rows) // 10)
    if len(rows) < 2 * width + 1:
        return 0.0
    means = [
        sum(row.train_loss for row in part) / width
        for part in (rows[-2 * width : -width], rows[-width:])
    ]
    fall = means[0] - means[1]
    chance = noise * (2 / width) ** 0.5
    return fall if fall > max(FALLING * means[1], 2 * chance) else 0.0
