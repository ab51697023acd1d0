"""Runs a program of the benchmark with a stand-in for the GPU, at tiny sizes.

    python -m bench.gpu.rehearsal.program bench.gpu.smoke --out FILE

`bench/gpu.sh --rehearse` runs its programs this way. The figures mean nothing: the CPU stands in
for the GPU, the backend cpu (or reference) for cuda, reference for triton, and nothing is
compiled.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

LARGEST = {"V": 60, "D": 6, "N": 40, "T": 3, "K": 20, "H": 12, "M": 3}
STEPS = {"stock_steps": 2, "run_steps": 3, "checked_steps": 2}
BUDGET = {"budget_s": 0.0, "min_sample_s": 1e-5}


def small(case: Any, **more: Any) -> Any:
    """The case under its own name, at tiny sizes."""
    sizes = {letter: min(size, LARGEST[letter]) for letter, size in case.sizes.items()}
    return replace(case, sizes=sizes, **more)


def stand_in() -> None:
    """Replaces GPU, torch.compile and backends; before other modules import them by name."""
    import mlpkern
    from bench.core import providers
    from bench.cuda import gpu
    from bench.gpu.rehearsal.stand_in import StandIn

    torch.set_num_threads(1)
    gpu.Gpu = StandIn  # type: ignore[assignment, misc]
    providers.compiled = lambda function, mode=None: function  # type: ignore[assignment]
    here = mlpkern.backends()
    cuda = "cpu" if here["cpu"].available else "reference"
    names = {"cuda": cuda, "triton": "reference"}
    states = {name: here[names.get(name, name)] for name in here}
    named = mlpkern.use_backend
    mlpkern.use_backend = lambda name: named(names.get(name, name))  # type: ignore[assignment]
    mlpkern.backends = lambda: states


def make_small() -> None:
    """Cases, limits and trainings that take no time."""
    from bench.cuda import limits as cuda_limits
    from bench.cuda import population_run
    from bench.cuda import training as cuda_training
    from bench.ops import cross_entropy, embedding_gather, linear_tanh
    from bench.training import names_run

    for op in (cross_entropy, embedding_gather, linear_tanh):
        op.CUDA_CASES = tuple(small(case) for case in op.CUDA_CASES)
        op.TABLE = replace(op.TABLE, cuda_cases=op.CUDA_CASES)
    for name in ("CASES", "RUN_CASES"):
        cases = getattr(cuda_training, name)
        setattr(cuda_training, name, tuple(small(case, **STEPS) for case in cases))
    measure = partial(cuda_limits.measure, dram_bytes=1 << 16, width=32, budget_s=0.0)
    cuda_limits.measure = lambda gpu, **_: measure(gpu)
    population_run.WARM_STEPS = 2
    whole: Callable[..., Any] = population_run.train_population
    population_run.train_population = partial(whole, models=3)
    lecture = names_run.Plan.config
    names_run.Plan.config = (  # type: ignore[method-assign]
        lambda plan: replace(lecture(plan), steps=20, lr=((0, 0.1),))
    )


def no_time() -> None:
    """The budgets of the programs."""
    from bench import run, yardsticks
    from bench.gpu import counters, first_figures, smoke

    counters.STEPS = 3
    run.CUDA = BUDGET
    smoke.WAYS = {way: ("", sizes) for way, (_, sizes) in smoke.WAYS.items()}
    first_figures.BUDGET_S, first_figures.MIN_SAMPLE_S = BUDGET.values()
    yardsticks.BUDGET_S, yardsticks.MODELS = 0.0, (1, 2)


def main(arguments: list[str]) -> int:
    for prepare in (stand_in, make_small, no_time):
        prepare()
    return int(importlib.import_module(arguments[0]).main(arguments[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
