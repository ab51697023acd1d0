"""Functions in a module's code that ``fuse`` leaves as they are, and why."""

from __future__ import annotations

import copy

import pytest
import torch
from support.fuse_functional import Net, Statements, check
from support.fuse_models import IDS
from torch import nn
from torch.nn.utils import parametrize

from mlpkern import fuse, unfuse


def test_a_value_that_something_else_sees_is_left():
    class Both(Net):
        def forward(self, x):
            emb = self.C(x)
            pre = self.l1(emb.flatten(1))
            h = torch.tanh(pre)
            return self.l2(h) + pre.sum() + emb.sum()

    class Late(Net):
        def forward(self, x):
            pre = self.l1(self.C(x).flatten(1))
            weight = self.l1.weight.detach().zero_()
            return self.l2(torch.tanh(pre)) + weight.sum()

    class Tried(Net):
        def forward(self, x):
            pre = self.l1(torch.ones(2, 30))
            try:
                h = self.l1(self.C(x).flatten(1))
                h = torch.tanh(h)
            finally:
                h = pre
            return self.l2(h)

    for make, left in ((Both, {"C", "l1"}), (Late, {"l1"}), (Tried, {"l1"})):
        answer = fuse(make())
        assert left <= {refusal.names[0] for refusal in answer.refused}, answer
        assert not left & {swap.names[0] for swap in answer}
        assert "l1: left as is, " in str(answer)


def test_code_that_cannot_be_read():
    names: dict = {"Net": Net, "torch": torch}
    code = "class Unseen(Net):\n def forward(self, x): return torch.tanh(self.l1(x))"
    exec(code, names)
    answer = fuse(names["Unseen"]())
    assert answer == []
    assert "write mlpkern.linear_tanh(x, self.l1.weight, self.l1.bias)" in str(answer)
    assert "the source of its code is not at hand" in str(answer)


class Registry(Net):
    def __init_subclass__(cls):
        raise AssertionError("no subclass expected")

    def forward(self, x):
        return self.l2(torch.tanh(self.l1(self.C(x).flatten(1))))


class Super(Statements):
    def forward(self, x):
        scale = torch.tanh(self.l1(torch.ones(30))).mean()
        return super(self.__class__, self).forward(x) * scale


class Meta(type):
    pass


class OfMeta(Net, metaclass=Meta):
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Registry, "its class has an __init_subclass__"),
        (Super, "forward asks for its class"),
        (OfMeta, "its class has a metaclass, Meta"),
    ],
)
def test_classes_that_a_subclass_would_disturb(make, reason):
    model = make()
    stock = copy.deepcopy(model)
    answer = fuse(model)
    assert answer == []
    assert reason in str(answer)
    check(stock, model, IDS)


def test_parametrized_modules():
    class Scaled(Net):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return self.l2(self.scale * torch.tanh(self.l1(self.C(x).flatten(1))))

    model = Scaled()
    parametrize.register_parametrization(model, "scale", nn.Tanh())
    assert fuse(model) == []
    parametrize.remove_parametrizations(model, "scale")
    assert len(fuse(model)) == 2
    stock = copy.deepcopy(model)
    unfuse(stock)
    for m in (stock, model):
        parametrize.register_parametrization(m, "scale", nn.Tanh())
    assert check(stock, model, IDS) == ["EmbeddingGather", "LinearTanh"]
    assert "remove the parametrization" in str(unfuse(model))
    parametrize.remove_parametrizations(model, "scale")
    assert len(unfuse(model)) == 1
    assert type(model) is Scaled
