"""Several configurations of one shape trained: `mlpkern.lm.population` against stock loops.

The unit is a step of one configuration; the configurations differ in seed and learning rate. Our
call is a whole training of all of them, from making the models to their dev losses. The loops of
stock and `ops` continue the training of existing models, one after another or all as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.core.case import Cost, Settings
from bench.core.providers import Contest, Prepared
from bench.training import step
from bench.training.case import (
    LECTURE,
    TrainingCase,
    config,
    every_model,
    many_models_case,
    names_dataset,
)

RATES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


@dataclass(frozen=True)
class PopulationCase(TrainingCase):
    """`run_steps` steps of M configurations, each with a learning rate of its own."""

    def rates(self, m: int, first: int, steps: int) -> list[float]:
        return [RATES[m % len(RATES)]] * steps


def population_case(
    models: int, sizes: Mapping[str, int], *, run_steps: int = 2000, stock_steps: int = 50
) -> PopulationCase:
    """Configurations of these sizes, on the embedded names."""
    steps = {"run_steps": run_steps, "stock_steps": stock_steps}
    return many_models_case(PopulationCase, "population", models, "models", sizes, **steps)


CASES = (population_case(8, LECTURE.sizes),)


def contest(case: PopulationCase, cost: Cost, settings: Settings) -> Contest:
    """The provider table of a population on a CPU, in the order in which rows are printed."""
    return step.contest(case, cost, settings, _population_prepared)


def _population_prepared(case: PopulationCase) -> Prepared:
    from mlpkern.lm import Trained, population

    dataset = names_dataset(case.sizes["T"])
    configs = [config(case, m) for m in every_model(case)]

    def train(steps: int) -> list[Trained]:
        return population([replace(c, steps=steps) for c in configs], dataset)

    def results() -> tuple[Tensor, ...]:
        trained = train(case.checked_steps)  # so few that every loss is a point of the curve
        losses = torch.stack([one.losses for one in trained])
        return (losses, *step.stacked(list(one.model.parameters()) for one in trained))

    return Prepared(lambda: train(case.run_steps), results, case.run_steps * len(configs))
