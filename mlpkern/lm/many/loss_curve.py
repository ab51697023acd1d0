"""The loss curves of models that train together, in a bounded number of points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Curve(NamedTuple):
    """``losses``: (points,) float32, the mean of every ``every`` losses, of fewer at the end."""

    losses: Tensor
    every: int


class LossCurve:
    """The mean of every ``every`` losses of M models; at most ``max_points`` means.

    Running sums in float64 are carried from chunk to chunk, so the bits do not depend on where
    chunks end.
    """

    def __init__(self, models: int, steps: int, max_points: int) -> None:
        self.every = max(1, -(-steps // max_points))
        self._sums = torch.zeros(models, 1, dtype=torch.float64, device="cpu")  # so far
        self._kept = [self._sums]  # the sums after every ``every`` steps
        self._steps, self._total = 0, steps

    def add(self, losses: Tensor) -> None:
        """The next losses (M, S)."""
        sums = torch.cat([self._sums, losses.double()], 1).cumsum(1)[:, 1:]  # (M, S)
        ends = torch.arange(losses.shape[1], device="cpu") + self._steps + 1
        self._kept.append(sums[:, (ends % self.every == 0) | (ends == self._total)])
        self._sums = sums[:, -1:]
        self._steps += losses.shape[1]

    def keep(self, rows: list[int]) -> None:
        """Drops the curves of all other models."""
        self._sums = self._sums[rows]
        self._kept = [kept[rows] for kept in self._kept]

    def curve(self, m: int) -> Curve:
        """The curve of model ``m`` so far."""
        return Curve(curve_points(self.sums(m), self.every, self._steps, self._total), self.every)

    def sums(self, m: int) -> Tensor:
        """What model ``m`` needs to continue: (points + 2,) float64, the sums at 0 and at the end
        of every point, then the sum so far."""
        return torch.cat([*(kept[m] for kept in self._kept), self._sums[m]])

    def restore(self, sums: list[Tensor], steps: int) -> None:
        """Continues after ``steps`` steps from the `sums` of each model."""
        every = torch.stack(sums)  # (M, points + 2)
        self._kept, self._sums, self._steps = [every[:, :-1]], every[:, -1:], steps


def curve_points(sums: Tensor, every: int, steps: int, total: int) -> Tensor:
    """The curve (points,) float32 from the `sums` of a model after ``steps`` of ``total`` steps."""
    sums = sums[:-1]
    counts = torch.full_like(sums[1:], every)
    if steps == total and total % every:
        counts[-1] = total % every
    return (sums.diff() / counts).float()
