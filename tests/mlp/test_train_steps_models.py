"""The model axis of ``train_steps``: each model is trained as if it were alone."""

from __future__ import annotations

import pytest
import torch
from support.train_problems import FLOATS, Problem, check, problem

pytestmark = pytest.mark.usefixtures("one_thread")


def test_models_with_settings_of_their_own(backend, device):
    M = 3
    for dtype in FLOATS:
        case = problem(M=M, device=device, dtype=dtype)
        case.batches = torch.randint(0, 60, (M, 30, 8), device=device)
        case.lr = torch.rand(M, 30, device=device) * 0.2
        own = {
            "weight_decay": [0.0, 0.1, 0.01],
            "input_dropout": [0.3, 0.0, 0.1],
            "hidden_dropout": [0.0, 0.2, 0.5],
        }
        check(case, **own)
        check(case, **own, seed=[3, 2**64 - 1, 3], momentum=0.9)
        check(case, **own, seed=[3, -4, 3], optimizer="adamw", max_grad_norm=0.6, lr=0.01)


def test_models_that_share_everything_but_their_parameters(backend, device):
    check(problem(M=5, device=device), lr=torch.linspace(0.2, 0.1, 30))
    check(problem(M=1, hidden=(8, 8), device=device), hidden_dropout=0.2, seed=4)


def test_models_do_not_see_one_another(backend, device):
    case = problem(M=3, device=device)
    losses, params = case.run(momentum=0.9)
    for m in range(3):
        single = Problem(case.params.model(m), case.inputs, case.targets, case.batches)
        loss, alone = single.run(momentum=0.9)
        assert torch.equal(loss, losses[m])
        for one, other in zip(alone.tensors(), params.model(m).tensors(), strict=True):
            assert torch.equal(one, other)


def test_values_for_each_model_as_tensors(backend, device):
    case = problem(M=2, device=device)
    values = {"weight_decay": [0.1, 0.2], "hidden_dropout": [0.1, 0.4], "seed": [8, 9]}
    losses, _ = case.run(**values)
    for kind in (torch.tensor, tuple, lambda value: torch.tensor(value, device=device)):
        again, _ = case.run(**{name: kind(value) for name, value in values.items()})
        assert torch.equal(losses, again)


def test_one_seed_gives_each_model_its_stream_and_the_first_that_of_a_single_model(backend, device):
    case = problem(M=2, device=device)
    for own, shared in zip(case.params.tensors(), case.params.model(0).tensors(), strict=True):
        own.copy_(shared.clone().expand_as(own))
    losses, _ = case.run(hidden_dropout=0.5, seed=3)
    assert not torch.equal(losses[0], losses[1])
    case.params = case.params.model(0)
    assert torch.equal(case.run(hidden_dropout=0.5, seed=3)[0], losses[0])
