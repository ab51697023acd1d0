"""Over 1,000 steps ``train_steps`` stays as close to float64 as stock torch does."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from train_problems import OPTIONS, SHAPES, Problem, Run, assert_as_close, problem

pytestmark = pytest.mark.usefixtures("one_thread")


@lru_cache  # for all backends
def stock(shape: str, name: str, device: str) -> tuple[Problem, dict, Run, Run]:
    """A problem of 1,000 steps, its options, and stock torch on it in float32 and float64."""
    sizes = SHAPES[shape] if shape else {"V": 7, "hidden": (8,), "N": 4}
    case = problem(**(sizes | {"S": 1000}), device=device)
    options = dict(OPTIONS[name])
    case.lr = options.pop("lr", 0.1)
    return case, options, case.stock(**options), case.to(torch.float64).stock(**options)


@pytest.mark.parametrize("name", OPTIONS)
def test_options(backend, device, name):
    case, options, single, double = stock("", name, device)
    assert_as_close(case.run(**options), single, double)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ("all ones", "sgd"),
        ("H=1 in the middle", "all of sgd"),
        ("D=10, N=33", "momentum"),
        ("prime", "adamw"),
        ("H=513", "sgd"),
    ],
)
def test_shapes(backend, device, shape, name):
    case, options, single, double = stock(shape, name, device)
    assert_as_close(case.run(**options), single, double)


def test_models(backend, device):
    case = problem(V=7, hidden=(8, 5), N=4, S=1000, M=3, device=device)
    case.lr = torch.linspace(0.15, 0.0, 3000, device=device).view(3, 1000)
    options = {
        "momentum": 0.8, "weight_decay": [0.0, 1e-3, 1e-2], "hidden_dropout": [0.1, 0.0, 0.2],
    }  # fmt: skip
    single, double = case.stock(**options), case.to(torch.float64).stock(**options)
    assert_as_close(case.run(**options), single, double)
