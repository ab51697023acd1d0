"""``train_steps`` equals a loop in stock torch: optimizers, regularization, depth, shapes."""

from __future__ import annotations

import pytest
import torch
from support.train_problems import FLOATS, LARGE, OPTIONS, SHAPES, check, problem

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", OPTIONS)
def test_options(backend, device, name, dtype):
    check(problem(device=device, dtype=dtype), **OPTIONS[name])


@pytest.mark.parametrize("name", ["momentum and decay", "all of sgd", "all of adamw"])
@pytest.mark.parametrize("hidden", [(16,), (12, 17), (9, 16, 7)])
def test_depth(backend, device, hidden, name):
    for dtype in FLOATS:
        check(problem(hidden=hidden, device=device, dtype=dtype), **OPTIONS[name])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(backend, device, name, dtype):
    case = problem(**SHAPES[name], device=device, dtype=dtype)
    check(case)
    check(case, **OPTIONS["all of adamw"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LARGE)
def test_large_shapes(backend, device, name, dtype):
    # Not adamw: its first steps divide a gradient by its own magnitude, and of half a million
    # gradients some are as small as their rounding error.
    case = problem(**LARGE[name], device=device, dtype=dtype)
    check(case, **OPTIONS["momentum and decay"])
    check(case, max_grad_norm=0.5, label_smoothing=0.1)


def test_a_schedule_of_learning_rates(backend, device):
    case = problem(device=device)
    for dtype in FLOATS:
        schedule = torch.linspace(0.3, 0.0, 30, dtype=dtype, device=device)
        check(case, lr=schedule)
        check(case, lr=schedule.tolist())
        check(case, lr=schedule, optimizer="adamw")
