"""``fuse`` of what the code of a module applies to its layers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from support.fuse_functional import EXAMPLES, Constants, Loop, Loss, Net, check, fused, ops
from support.fuse_models import IDS
from torch import nn

from mlpkern import MLPParams, fuse, unfuse


@pytest.mark.parametrize("make", EXAMPLES)
def test_equals_the_code_as_written(make):
    stock, model = fused(make)
    assert list(model.state_dict()) == list(stock.state_dict())
    assert isinstance(model, make)
    assert type(model.l1 if make is not Loop else model.layers[0]) is nn.Linear
    expected = ["EmbeddingGather", "LinearTanh"] + ["LinearTanh"] * (make is Loop)
    assert check(stock, model, IDS) == expected
    for shape in ((3,), (1, 3), (2, 9, 3)) if make is Constants else ((1, 3),):
        check(stock, model, torch.randint(0, 27, shape))


def test_the_answer():
    assert str(fuse(Net())) == (
        "l1 + tanh: Linear + tanh -> linear_tanh\nC + view: Embedding + view -> embedding_gather"
    )
    assert [str(swap) for swap in fuse(Loop())] == [
        "C + reshape: Embedding + reshape -> embedding_gather",
        "layers.0 + tanh: Linear + tanh -> linear_tanh",
        "layers.1 + tanh: Linear + tanh -> linear_tanh",
    ]
    inside = nn.ModuleDict({"a": Loss()})
    assert "a: cross_entropy -> mlpkern.cross_entropy" in map(str, fuse(inside))


def test_a_loss():
    stock, model = fused(Loss)
    targets = torch.randint(-1, 27, (9,))
    check(stock, model, IDS, targets)
    assert ops(model(IDS, targets)[1]) == ["CrossEntropy", "EmbeddingGather", "LinearTanh"]
    assert model(IDS)[1] is None


def test_a_second_time_finds_nothing_and_unfuse_is_the_inverse():
    stock, model = fused(Net)
    again = fuse(model)
    assert again == []
    assert [refusal.names for refusal in again.refused] == [("l2",)]
    assert str(unfuse(model)) == "model: Net (fused) -> Net"
    assert type(model) is Net
    assert vars(model).keys() == vars(stock).keys()
    assert check(stock, model, IDS) == []
    assert len(fuse(model)) == 2


def test_copies_and_pickles_have_their_own_parameters():
    _, model = fused(Net)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert len(ops(other(IDS))) == 2
        with torch.no_grad():
            other.l1.weight.zero_()
        assert not torch.equal(other(IDS), model(IDS))
        unfuse(other)
        assert type(other) is Net


def test_from_module_reads_the_code_as_written():
    _, model = fused(Net)
    assert MLPParams.from_module(model).embedding is model.C.weight
