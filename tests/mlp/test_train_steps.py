"""``train_steps`` equals a loop in stock torch: optimizers, regularization, depth, shapes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.train_problems import FLOATS, LARGE, OPTIONS, SHAPES, check, problem

import mlpkern
from mlpkern.ops import train_steps as op

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


# the record of arguments that a backend gets


@pytest.fixture
def arguments(monkeypatch):
    """The record of a call."""
    found = []

    def keep(_backend, record, _state):
        found.append(record)
        return torch.zeros(1, 30)

    monkeypatch.setattr(op, "train", keep)
    case = problem()
    mlpkern.train_steps(case.params, case.inputs, case.targets, case.batches, case.lr)
    return found[0]


def test_a_part_of_the_steps(arguments):
    part = arguments._replace(step=7).steps(10, 12)
    assert part.step == 17
    assert torch.equal(part.batches, arguments.batches[:, 10:12])
    assert torch.equal(part.rates, arguments.rates[:, 10:12])
    assert part.parameters is arguments.parameters


def test_the_binding_names_an_attribute_that_is_missing_or_wrong(arguments):
    pytest.importorskip("mlpkern._C")
    from mlpkern import _C

    fields = arguments._asdict()
    del fields["rates"]
    with pytest.raises(AttributeError, match="rates"):
        _C.train_steps(SimpleNamespace(**fields))
    for change, message in (
        ({"step": "x"}, "arguments.step must be a number, got str"),
        ({"frozen": 1}, "arguments.frozen must be a list, got int"),
        ({"rule": arguments.rule._replace(eps=None)}, "arguments.eps must be a number, got Non"),
    ):
        with pytest.raises(TypeError, match=f"^train_steps: {message}"):
            _C.train_steps(arguments._replace(**change))
