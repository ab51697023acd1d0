"""A verdict on the losses of a finished run: underfit, overfit, near capacity or unclear.

A loss over few rows is known only roughly: the mean of N losses with standard deviation s has the
standard error s / sqrt(N). A difference below two of those may be chance, and leads to no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlpkern.lm.analysis.ngram import ngram_name
from mlpkern.lm.saved.log import LogRow

GAP = 0.05  # overfit: dev is above train by more than this share of dev
RISEN = 0.01  # overfit: dev is above its lowest by more than this share
FALLING = 0.005  # underfit: train fell by more than this share over the last tenth of the steps
SURE = 2  # standard errors that a difference must exceed


@dataclass(frozen=True)
class Verdict:
    """``kind``: "overfit", "underfit", "near capacity", or "unclear" where the dev split has too
    few rows to tell; ``reason``; ``advice``: what next."""

    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}. {self.advice}."


@dataclass(frozen=True)
class Noise:
    """Standard errors in nats of what a verdict compares; 0: known exactly.

    Attributes:
        dev: of the dev loss
        gap: of the dev loss minus the train loss
        counts: n -> of the dev loss of the model minus that of the n-gram, on the same rows
        batches: of the train loss of a log row, due to the choice of batches
    """

    dev: float = 0.0
    gap: float = 0.0
    counts: Mapping[int, float] = field(default_factory=dict)
    batches: float = 0.0


def verdict(
    train: float,
    dev: float,
    rows: Sequence[LogRow],
    *,
    ngrams: Mapping[int, float] | None = None,
    noise: Noise | None = None,
) -> Verdict:
    """The first of these that applies to the losses ``train`` and ``dev`` over whole splits.

    1. overfit: dev is more than 5 % above train (as a share of dev), or the last dev loss of the
       log is more than 1 % above its lowest, even if ``dev`` is that of the best model;
    2. underfit: dev is not below the best of ``ngrams``, or the train loss still falls: its mean
       over the last tenth of the log is lower than over the tenth before by more than 0.5 %;
    3. unclear: one of these differences but the last is within two standard errors of its limit;
    4. near capacity: train and dev agree, the curve is flat, and the model beats the n-grams.

    For 1 and 2 the difference must also exceed two standard errors.

    Args:
        rows: the log.
        ngrams: n -> dev loss of n-grams with no more context than the model.
        noise: the standard errors; None: all losses are exact.

    >>> print(verdict(2.0, 2.5, []))
    overfit: dev is 0.500 (20.0 %) above train. Weight decay, dropout, a smaller model or more \
words close the gap.
    >>> verdict(2.0, 2.05, [], ngrams={2: 2.4}).kind
    'near capacity'
    >>> verdict(2.0, 2.05, [], ngrams={2: 2.4, 3: 2.02}).kind
    'underfit'
    >>> verdict(2.0, 2.5, [], noise=Noise(gap=0.3)).kind
    'unclear'
    """
    noise = noise or Noise()
    unclear = []
    gap = f"{abs(dev - train):.3f} ({100 * abs(dev - train) / dev:.1f} %)"
    if dev - train > max(GAP * dev, SURE * noise.gap):
        return Verdict(
            "overfit",
            f"dev is {gap} above train",
            "Weight decay, dropout, a smaller model or more words close the gap",
        )
    if SURE * noise.gap > GAP * dev:
        side = "above" if dev > train else "below"
        unclear.append(f"dev is {gap} {side} train, with a standard error of {noise.gap:.3f}")
    taken = [(row.dev_loss, row.step) for row in rows if row.dev_loss is not None]
    lowest, step = min(taken, default=(dev, 0))
    last = taken[-1][0] if taken else dev
    risen = f"dev was {lowest:.4f} at step {step} and has risen to {last:.4f} since"
    if last - lowest > max(RISEN * lowest, SURE * noise.dev):
        return Verdict(
            "overfit",
            risen,
            "Fewer steps, a smaller learning rate, weight decay or dropout keep it down",
        )
    if last > (1 + RISEN) * lowest:
        unclear.append(f"{risen}, with a standard error of {noise.dev:.3f}")
    if ngrams:
        best = min(ngrams, key=lambda n: ngrams[n])
        error, counted = noise.counts.get(best, 0.0), ngrams[best]
        if dev - counted >= SURE * error:
            return Verdict(
                "underfit",
                f"counting reaches dev {counted:.4f} ({ngram_name(best)}) with no more context, "
                f"the model {dev:.4f}, and train is only {gap} away",
                "A larger hidden layer or embedding, more steps or a better learning rate go lower",
            )
        if abs(dev - counted) < SURE * error:
            unclear.append(
                f"counting reaches dev {counted:.4f} ({ngram_name(best)}), the model {dev:.4f}, a "
                f"difference with a standard error of {error:.3f}"
            )
    if fall := still_falling(rows, noise.batches):
        return Verdict(
            "underfit",
            f"the train loss still falls, by {fall:.3f} over the last tenth of the steps",
            "Train longer",
        )
    if unclear:
        return Verdict(
            "unclear", f"too few dev rows to tell: {unclear[0]}", "More words make it clear"
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
