"""What ``fuse`` says about layers that it leaves alone, and what to write instead."""

from __future__ import annotations

import copy

import pytest
import torch
from support.fuse_models import IDS
from torch import nn
from torch.nn import functional as F

from mlpkern import fuse


def answer(model: nn.Module, *inputs: torch.Tensor) -> dict[str, str]:
    """The reasons by the names of layers; the results of the model must not change."""
    stock = copy.deepcopy(model).eval()
    result = fuse(model.eval())
    torch.testing.assert_close(model(*inputs), stock(*inputs))
    assert not result
    return {" + ".join(refusal.names): refusal.reason for refusal in result.refused}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.C = nn.Embedding(27, 10)
        self.l1, self.l2 = nn.Linear(30, 8), nn.Linear(8, 27)

    def join(self, e):
        return e.view(len(e), -1)

    def tanh(self, h):
        return torch.tanh(h)

    def forward(self, s):
        return self.l2(self.tanh(self.l1(self.join(self.C(s)))))


@pytest.mark.parametrize("tanh", [lambda h: torch.tanh(h), lambda h: h.tanh_()])
def test_functional_tanh(tanh):
    class Learner(Net):
        def forward(self, s):
            return self.l2(tanh(self.l1(self.join(self.C(s)))))

    reasons = answer(Learner(), IDS)
    assert "mlpkern.linear_tanh(x, self.l1.weight, self.l1.bias)" in reasons["l1"]
    assert "l2" not in reasons


@pytest.mark.parametrize(
    "join",
    [
        lambda e: e.view(len(e), -1),
        lambda e: e.view(e.shape[0], 30),
        lambda e: e.reshape(e.size(0), -1),
        lambda e: e.flatten(1),
        lambda e: torch.flatten(e, 1),
        lambda e: torch.cat(torch.unbind(e, 1), 1),
        lambda e: torch.cat((e[:, 0], e[:, 1], e[:, 2]), 1),
    ],
)
def test_functional_joins_of_the_embedding(join):
    class Learner(Net):
        def join(self, e):
            return join(e)

    assert "mlpkern.embedding_gather(ids, self.C.weight)" in answer(Learner(), IDS)["C"]


def test_functional_losses():
    def loss(logits, targets):
        return F.cross_entropy(logits, targets)

    class Learner(Net):
        def forward(self, s):
            return loss(super().forward(s), s[:, 0])

    class Untraceable(Net):
        def loss(self):
            return F.cross_entropy

        def forward(self, s):
            assert len(s) > 0
            return self.loss()(super().forward(s), s[:, 0])

    for model in (Learner(), Untraceable()):
        assert "write mlpkern.cross_entropy" in answer(model, IDS)["model"]
    assert "cannot be traced" in answer(Untraceable(), IDS)["C + l1 + l2"]


def test_functional_linear():
    class Learner(Net):
        def forward(self, s):
            x = self.join(self.C(s))
            return torch.tanh(F.linear(x, self.l1.weight, self.l1.bias))

    assert "write mlpkern.linear_tanh" in answer(Learner(), IDS)["model"]


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([nn.BatchNorm1d(5), nn.Tanh()], "BatchNorm1d stands between it and 2: only a tanh right"),
        ([nn.Dropout(0.1), nn.Tanh()], "Dropout stands between it and 2: put it after the tanh"),
        ([nn.ReLU()], "followed by ReLU: only nn.Tanh right after it is fused"),
        ([nn.LayerNorm(5)], "followed by LayerNorm: only nn.Tanh right after it is fused"),
        ([], "no nn.Tanh follows it"),
        ([nn.Linear(5, 5)], "no nn.Tanh follows it"),
    ],
)
def test_layers_in_between(layers, reason):
    model = nn.Sequential(nn.Linear(4, 5), *layers)
    assert reason in answer(copy.deepcopy(model), torch.randn(3, 4))["0"]

    class Attributes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.rest = nn.Linear(4, 5), nn.ModuleList(layers)

        def forward(self, x):
            x = self.lin(x)
            for layer in self.rest:
                x = layer(x)
            return x

    said = answer(Attributes(), torch.randn(3, 4))["lin"]
    assert said == reason.replace("2:", "a tanh:") or said.startswith(reason.replace("2", "a tanh"))


def test_an_embedding_without_flatten():
    class Squash(nn.Module):
        def forward(self, e):
            return e.sum(1)

    model = nn.Sequential(nn.Embedding(27, 4), Squash())
    assert answer(model, IDS)["0"].startswith("followed by Squash: only nn.Flatten(-2)")
    model = nn.Sequential(nn.Embedding(27, 4), nn.Linear(4, 2))
    assert answer(model, IDS) == {"0": "no nn.Flatten follows it", "1": "no nn.Tanh follows it"}


def test_no_layer_at_all():
    assert "it has nothing of Linear + Tanh" in answer(nn.ReLU(), torch.randn(2))["model"]
    assert "it has nothing" in answer(nn.Sequential(nn.ReLU()), torch.randn(2))["model"]
