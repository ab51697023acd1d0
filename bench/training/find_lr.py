"""The sweep of the learning rate over several seeds: `mlpkern.lm.lr_finder` against stock loops.

The unit is a step of one seed. Our call is the whole sweep of all seeds, from drawing its
minibatches to the suggested rates. The loops take the same steps at the same rates in pieces, one
seed after another or all seeds as one model; they begin again where the sweep ends, and suggest
nothing. The check compares the losses of a shorter sweep over the same range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from bench.core.case import Cost, Settings
from bench.core.providers import Contest, Prepared
from bench.training import step
from bench.training.case import LECTURE, SEED, TrainingCase, every_model, many_models_case, start

LOW, HIGH = 1e-4, 10.0  # those of lr_finder; no seed diverges


@dataclass(frozen=True)
class SweepCase(TrainingCase):
    """A sweep of `run_steps` steps for each of M seeds; `stock_steps` divide it."""

    @property
    def length(self) -> int:
        return self.run_steps

    def rates(self, m: int, first: int, steps: int) -> list[float]:
        return _sweep(self.run_steps)[first : first + steps]

    def compared(self, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return results[:1]  # the losses: the finder gives no parameters back

    @property
    def checked(self) -> SweepCase:
        return replace(self, run_steps=self.checked_steps)


@cache
def _sweep(steps: int) -> list[float]:
    along = torch.linspace(0, 1, steps, dtype=torch.float64)
    rates: list[float] = (LOW * (HIGH / LOW) ** along).tolist()
    return rates


def sweep_case(
    seeds: int, sizes: Mapping[str, int], *, run_steps: int = 1000, stock_steps: int = 50
) -> SweepCase:
    """The sweep of a model of these sizes."""
    steps = {"run_steps": run_steps, "stock_steps": stock_steps}
    return many_models_case(SweepCase, "find-lr", seeds, "seeds", sizes, **steps)


CASES = (sweep_case(8, LECTURE.sizes),)


def contest(case: SweepCase, cost: Cost, settings: Settings) -> Contest:
    """The provider table of a sweep on a CPU, in the order in which rows are printed."""
    return step.contest(case, cost, settings, _finder_prepared)


def _finder_prepared(case: SweepCase) -> Prepared:
    from mlpkern.lm import LRCurve, lr_finder

    states = [start(case, m) for m in every_model(case)]
    models, train = [state.model for state in states], states[0].train
    seeds = [SEED + m for m in every_model(case)]

    def sweep(steps: int) -> LRCurve:
        rows = case.sizes["N"]
        return lr_finder(
            models, train, low=LOW, high=HIGH, steps=steps, batch_size=rows, seeds=seeds
        )

    return Prepared(
        lambda: sweep(case.run_steps),
        lambda: (sweep(case.checked_steps).losses,),
        case.run_steps * len(models),
    )
