"""``fuse`` of functions that a module's code applies to its layers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from support.fuse_functional import Loss, Method, Net, Statements, check, fused, ops
from support.fuse_models import IDS
from torch import nn
from torch.nn import functional as F

from mlpkern import MLPParams, fuse, unfuse

WIDTH = 30


class InPlace(Net):
    def forward(self, x):
        return self.l2(self.l1(torch.flatten(self.C(x), 1)).tanh_())


class Functional(Net):
    def forward(self, x):
        return self.l2(F.tanh(self.l1(self.C(x).reshape(x.shape[0], -1))))


class Unbind(Net):
    def forward(self, x):
        return self.l2(nn.functional.tanh(self.l1(torch.cat(torch.unbind(self.C(x), 1), 1))))


class OneName(Net):
    def forward(self, x):
        x = self.C(x)
        x = torch.cat(x.unbind(1), dim=1)
        x = self.l1(x)
        x = x.tanh()
        return self.l2(x)


class Constants(Net):
    def forward(self, x):
        emb = self.C(x)
        h = torch.tanh(self.l1(emb.view(-1, WIDTH)))
        return self.l2(h)


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.C = nn.Embedding(27, 10)
        self.layers = nn.ModuleList([nn.Linear(30, 8), nn.Linear(8, 8), nn.Linear(8, 27)])

    def forward(self, x):
        x = torch.reshape(self.C(x), (x.size(0), -1))
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


EXAMPLES = [
    Net, Method, InPlace, Functional, Unbind, Statements, OneName, Constants, Loop, Loss,
]  # fmt: skip


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
