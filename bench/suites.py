"""All the suites of the benchmark, in the order of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from bench.core.case import Case, Cost, OpTable, Settings
from bench.core.device import Device
from bench.core.op_contest import op_contest
from bench.core.providers import OURS, Contest
from bench.cuda import training as cuda_training
from bench.cuda.providers import GRAPH, cuda_op_contest
from bench.cuda.providers import OURS as CUDA
from bench.ops import cross_entropy, embedding_gather, embedding_linear_tanh, evaluate, linear_tanh
from bench.training import case as training_case
from bench.training import find_lr, population
from bench.training import step as training_step
from bench.training.case import TrainingCase
from bench.training.stock_rows import BASELINE

OP_TABLES: dict[str, OpTable] = {
    table.op: table
    for table in (
        cross_entropy.TABLE,
        embedding_gather.TABLE,
        linear_tanh.TABLE,
        embedding_linear_tanh.TABLE,
    )
}


@dataclass(frozen=True)
class Suite:
    """Cases that are measured alike: their costs, and how their providers are prepared."""

    name: str
    cases: tuple[Case, ...]
    cost: Callable[[Case], Cost]
    contest: Callable[[Case, Cost, Settings], Contest]
    ours: str = OURS  # the row that its ratios are about
    ours_graph: str = ""  # on a GPU: the same among the CUDA graphs
    baseline: str = ""  # a stock provider with a ratio of its own
    table: OpTable | None = None  # of an op that keep_pages.py can run


TRAINING_CASES: tuple[TrainingCase, ...] = (
    *training_case.CASES,
    *find_lr.CASES,
    *population.CASES,
)
TRAINING_CONTESTS = {
    find_lr.SweepCase: find_lr.contest,
    population.PopulationCase: population.contest,
}


def _training_contest(case: TrainingCase, cost: Cost, settings: Settings) -> Contest:
    return TRAINING_CONTESTS.get(type(case), training_step.contest)(case, cost, settings)


SUITES: tuple[Suite, ...] = (
    *(
        Suite(table.op, table.cases, table.cost, partial(op_contest, table), table=table)
        for table in OP_TABLES.values()
    ),
    Suite("evaluate", evaluate.CASES, evaluate.cost, evaluate.contest),
    Suite(
        "training_step",
        TRAINING_CASES,
        training_case.cost,
        _training_contest,
        ours=training_step.OURS,
        baseline=BASELINE,
    ),
)


def cuda_suites(gpu: Device | None) -> tuple[Suite, ...]:
    """The suites of a GPU; without one (None) their cases can be listed, not run."""

    def op_suite(table: OpTable) -> Suite:
        def cost(case: Case) -> Cost:
            """Rotated inputs come from DRAM, however small they are."""
            floors = table.cost(case)
            if gpu is None or not case.rotate:
                return floors
            return replace(floors, footprint=max(floors.footprint, 2 * gpu.l2_bytes))

        contest = partial(cuda_op_contest, table, gpu=gpu)
        return Suite(table.op, table.cuda_cases, cost, contest, CUDA, CUDA + GRAPH, "eager")

    def training(cases: tuple[TrainingCase, ...], ours: str, graph: str) -> Suite:
        contest = partial(cuda_training.cuda_contest, gpu=gpu)
        return Suite("training_step", cases, training_case.cost, contest, ours, graph, BASELINE)

    # A CUDA graph of train_steps would save nothing, so its row stands in both ratios.
    runs = training(cuda_training.RUN_CASES, training_step.OURS, training_step.OURS)
    steps = training(cuda_training.CASES, cuda_training.OURS_STEP, cuda_training.ENGINE)
    ops = (op_suite(table) for table in OP_TABLES.values() if table.cuda_cases)
    return (*ops, runs, steps)


def cuda_cases() -> list[Case]:
    """The cases of a GPU, in the order of the report."""
    return [case for suite in cuda_suites(None) for case in suite.cases]
