"""A model for every multiprocessor, trained as in the lecture: the wall time of one `population`.

A training is everything that a user waits for: making the models, drawing, all steps, dev losses.
One plain run at each precision: an impression, not a measurement like those of the cases.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from bench.core.timer import timed
from bench.cuda.providers import OURS, with_cuda_backend
from bench.training.names_run import Plan

MODELS = 132
WARM_STEPS = 200  # the first call loads libraries
PRECISIONS = ("float32", "tf32")


def train_population(plan: Plan, device: str, models: int = MODELS) -> dict[str, Any]:
    """Seconds of a population of the lecture's model on `device`, and its dev losses."""
    from mlpkern.lm import population

    config = replace(plan.config(), eval_every=0, checkpoint_every=0)
    dataset = plan.dataset(config).to(device)
    configs = [replace(config, seed=seed) for seed in range(models)]
    runs = {}
    for precision in PRECISIONS:
        with with_cuda_backend(OURS, precision):
            population([replace(c, steps=WARM_STEPS) for c in configs], dataset)
            seconds, trained = timed(partial(population, configs, dataset))
        losses = torch.tensor([one.dev.loss for one in trained], dtype=torch.float64)
        runs[precision] = {
            "seconds": seconds,
            "dev_mean": float(losses.mean()),
            "dev_std": float(losses.std()),
            "dev_best": float(losses.min()),
        }
    source = plan.file.name if plan.file else "embedded names"
    return {
        "data": f"{source}, {len(dataset.splits['train'])} training rows",
        "models": models,
        "steps": config.steps,
        "runs": runs,
    }
