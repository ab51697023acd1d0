"""Modules that apply functions to their layers, and what ``fuse`` makes of them.

The ops are counted by their nodes in the graph of the output: whether one ran shows there alone.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from mlpkern import fuse

WIDTH = 30


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.C = nn.Embedding(27, 10)
        self.l1, self.l2 = nn.Linear(30, 8), nn.Linear(8, 27)

    def forward(self, x):
        return self.l2(torch.tanh(self.l1(self.C(x).view(len(x), -1))))


class Method(Net):
    def forward(self, x):
        return self.l2(self.l1(self.C(x).flatten(1)).tanh())


class InPlace(Net):
    def forward(self, x):
        return self.l2(self.l1(torch.flatten(self.C(x), 1)).tanh_())


class Functional(Net):
    def forward(self, x):
        return self.l2(F.tanh(self.l1(self.C(x).reshape(x.shape[0], -1))))


class Unbind(Net):
    def forward(self, x):
        return self.l2(nn.functional.tanh(self.l1(torch.cat(torch.unbind(self.C(x), 1), 1))))


class Statements(Net):
    def forward(self, x):
        emb = self.C(x)  # (N, 3, 10)
        embcat = emb.view(emb.shape[0], -1)
        hpreact = self.l1(embcat)
        h = torch.tanh(hpreact)
        return self.l2(h)


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


class Loss(Net):
    def forward(self, x, y=None):
        logits = super().forward(x) + torch.tanh(self.l1(torch.flatten(self.C(x), 1))).mean()
        loss = None
        if y is not None:
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1), ignore_index=-1)
        return logits, loss


EXAMPLES = [
    Net, Method, InPlace, Functional, Unbind, Statements, OneName, Constants, Loop, Loss,
]  # fmt: skip


def ops(output: torch.Tensor) -> list[str]:
    """The nodes of mlpkern's ops in the graph of ``output``."""
    found, waiting, seen = [], [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [after for after, _ in node.next_functions]
        name = type(node).__name__.removesuffix("Backward")
        found += [name] if name in ("LinearTanh", "EmbeddingGather", "CrossEntropy") else []
    return sorted(found)


def results(model: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Outputs and gradients."""
    model.zero_grad()
    output = model(*inputs)
    outputs = [t for t in (output if isinstance(output, tuple) else [output]) if t is not None]
    sum(t.pow(2).sum() for t in outputs).backward()
    return [*outputs, *(p.grad for p in model.parameters())]


def check(stock: nn.Module, model: nn.Module, *inputs: torch.Tensor) -> list[str]:
    """The ops of ``model``, which must do what ``stock`` does, in both modes."""
    for training in (True, False):
        both = results(stock.train(training), *inputs), results(model.train(training), *inputs)
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other)
    return ops(both[1][0])


def fused(make: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A module, and the same one fused."""
    stock = make()
    model = copy.deepcopy(stock)
    assert fuse(model)
    return stock, model
