"""``fuse``: what it swaps, and what stays the same."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from support.fuse_models import IDS, Model, makemore
from torch import nn

import mlpkern.nn
from mlpkern import fuse


def check_same(model: nn.Module, *inputs: torch.Tensor) -> list[str]:
    """The swaps in a fused copy of ``model``, whose results and gradients must not change."""
    fused = copy.deepcopy(model)
    swapped = fuse(fused)
    assert list(fused.state_dict()) == list(model.state_dict())
    results = []
    for m in (model, fused):
        m.zero_grad()
        output = m(*inputs)
        output.pow(2).sum().backward()
        results.append([output.detach(), *(p.grad for p in m.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    return [str(swap) for swap in swapped]


# What it swaps


def test_a_sequential(backend, device):
    assert check_same(makemore().to(device), IDS.to(device)) == [
        "0 + 1: Embedding + Flatten -> EmbeddingFlatten",
        "2 + 3: Linear + Tanh -> LinearTanh",
    ]


def test_sequentials_inside_others():
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 5), nn.Tanh()),
        nn.ModuleDict({"a": nn.Identity()})["a"],
        nn.Sequential(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Dropout(0.0)), nn.Linear(6, 2)),
    )
    assert check_same(model, torch.randn(3, 4)) == [
        "0.0 + 0.1: Linear + Tanh -> LinearTanh",
        "2.0.0 + 2.0.1: Linear + Tanh -> LinearTanh",
    ]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 5, 3), (2, 2, 5, 3)], ids=str)
@pytest.mark.parametrize("flatten", [nn.Flatten(), nn.Flatten(-2), nn.Flatten(1, -1)], ids=repr)
def test_flatten_of_ids_of_any_rank(shape, flatten):
    if len(shape) == 1 and flatten.start_dim == -2:
        model = nn.Sequential(nn.Embedding(27, 10), flatten, nn.Unflatten(0, (1, -1)))
    else:
        model = nn.Sequential(nn.Embedding(27, 10), flatten)
    assert len(check_same(model, torch.randint(0, 27, shape))) == 1


def test_attributes():
    assert check_same(Model(), IDS) == [
        "table + flat: Embedding + Flatten -> EmbeddingGather",
        "first + act: Linear + Tanh -> LinearTanh",
        "more.0 + act: Linear + Tanh -> LinearTanh",
        "more.1 + act: Linear + Tanh -> LinearTanh",
        "loss: CrossEntropyLoss -> CrossEntropyLoss (fused)",
    ]


def test_a_second_time_finds_nothing():
    model = makemore()
    assert len(fuse(model)) == 2
    again = fuse(model)
    assert again == []
    assert str(again) == "4: left as is, no nn.Tanh follows it"


# What stays the same


def test_parameters_stay_the_same_objects_and_the_optimizer_works():
    model = makemore()
    before = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fuse(model)
    assert all(after is before[name] for name, after in model.named_parameters())
    start = [p.detach().clone() for p in model.parameters()]
    model(IDS).pow(2).sum().backward()
    optimizer.step()
    for old, new in zip(start, model.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_dtype_mode_and_frozen_parameters_stay():
    model = makemore().double().eval()
    model[2].weight.requires_grad_(False)
    model[2].note = "mine"
    fuse(model)
    assert model[2].weight.dtype is torch.float64
    assert not model[2].weight.requires_grad
    assert not any(module.training for module in model.modules())
    assert model[2].note == "mine"
    assert model.train()[3].training


def test_hooks_that_see_the_same_stay_and_their_handles_work():
    model = makemore()
    seen = []
    handle = model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    model[4].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    assert len(fuse(model)) == 2
    model(IDS)
    assert seen == [(9, 30), (9, 27)]
    handle.remove()
    model(IDS)
    assert len(seen) == 3


def test_a_fused_model_can_be_pickled_and_copied():
    model = makemore()
    fuse(model)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(IDS), model(IDS))
        assert isinstance(other[2], mlpkern.nn.LinearTanh)


def test_the_same_activation_and_a_tied_layer_in_one_sequential():
    act, tied = nn.Tanh(), nn.Linear(6, 6)
    model = nn.Sequential(tied, act, tied, act, nn.Linear(6, 6), nn.ReLU(), tied)
    assert len(check_same(model, torch.randn(4, 6))) == 2
