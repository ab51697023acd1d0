"""``train_steps`` stays as close to float64 as stock torch over 1,000 steps."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from support.train_problems import OPTIONS, SHAPES, Problem, Run, assert_as_close, problem

pytestmark = pytest.mark.usefixtures("one_thread")


def solved(case: Problem, options: dict) -> tuple[Problem, dict, Run, Run]:
    """The problem, its options, and the results of stock torch in float32 and float64."""
    return case, options, case.stock(**options), case.to(torch.float64).stock(**options)


@lru_cache  # for all backends
def single_model(shape: str, name: str, device: str) -> tuple[Problem, dict, Run, Run]:
    sizes = SHAPES[shape] if shape else {"V": 7, "hidden": (8,), "N": 4}
    case = problem(**(sizes | {"S": 1000}), device=device)
    options = dict(OPTIONS[name])
    case.lr = options.pop("lr", 0.1)
    return solved(case, options)


@lru_cache
def two_models(device: str) -> tuple[Problem, dict, Run, Run]:
    case = problem(V=7, hidden=(8,), N=4, S=1000, M=2, device=device)
    case.lr = torch.linspace(0.15, 0.0, 2000, device=device).view(2, 1000)
    options = {"momentum": 0.8, "weight_decay": [0.0, 1e-2], "hidden_dropout": [0.2, 0.0]}
    return solved(case, options)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(backend, device, name):
    case, options, single, double = single_model("", name, device)
    assert_as_close(case.run(**options), single, double)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ("all ones", "sgd"),
        ("H=1 in the middle", "nesterov"),
        ("D=10, N=33", "momentum"),
        ("prime", "adamw"),
        ("H=513", "sgd"),
    ],
)
def test_shapes(backend, device, shape, name):
    case, options, single, double = single_model(shape, name, device)
    assert_as_close(case.run(**options), single, double)


def test_models(backend, device):
    case, options, single, double = two_models(device)
    assert_as_close(case.run(**options), single, double)
