"""A machine, a case and kernels, right and wrong, so small that the benchmark runs in no time."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from bench.core.case import Case, Settings
from bench.core.limits import Limits
from bench.core.op_contest import op_contest
from bench.ops import cross_entropy
from bench.suites import Suite

# torch.compile and JAX would take longer than all tests together
SETTINGS = Settings(1, quick=True, compile=False, jax=False, budget_s=0.0, min_sample_s=1e-5)
MACHINE = Limits(
    {"L2": 1e11, "past L2": 5e10, "DRAM": 1e10},
    {"L2": 1 << 20, "past L2": 1 << 24, "DRAM": 1 << 30},
    {"float32": 1e11, "bfloat16": 5e10, "float32, 1 thread": 1e11},
    1,
    1.5e-6,
    {"1 thread": 1e11, "all threads": 1e11},
)
CASE = Case("cross_entropy", "8x5", "float32", {"N": 8, "V": 5}, quick=True)


class FakeProcesses:
    """In the place of processes that train a model each, which take seconds to start."""

    def __init__(self, case, loop, count):
        self.steps = []

    def take(self, steps):
        self.steps.append(steps)

    def close(self):
        self.steps.clear()


def suite_with(fused=None, ours="reference") -> Suite:
    """cross_entropy on 8 rows of 5 classes, with `fused` in the place of mlpkern's function."""
    table = replace(cross_entropy.TABLE, cases=(CASE,), ours=fused)

    def contest(case, cost, settings):
        return op_contest(table, case, cost, settings)

    return Suite("cross_entropy", (CASE,), table.cost, contest, ours=ours)


def row_of(result, provider):
    return next(row for row in result["rows"] if row["provider"] == provider)


def off_by_a_little(input, target):
    return F.cross_entropy(input, target) * 1.00001


def nan(input, target):
    return F.cross_entropy(input, target) * float("nan")


def wrong_gradient(input, target):
    """The right loss; its gradient misses the last row."""
    loss = F.cross_entropy(input, target)
    part = torch.cat([input[:-1], input[-1:].detach()])
    other = F.cross_entropy(part, target)
    return other + (loss - other).detach()


def wrong_dtype(input, target):
    return F.cross_entropy(input.double(), target)
