"""Modules that apply functions to their layers, and what ``fuse`` makes of them.

Only the graph of the output shows which ops ran, so they are counted by their nodes in it.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from mlpkern import fuse


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


class Statements(Net):
    def forward(self, x):
        emb = self.C(x)  # (N, 3, 10)
        embcat = emb.view(emb.shape[0], -1)
        hpreact = self.l1(embcat)
        h = torch.tanh(hpreact)
        return self.l2(h)


class Loss(Net):
    def forward(self, x, y=None):
        logits = super().forward(x) + torch.tanh(self.l1(torch.flatten(self.C(x), 1))).mean()
        loss = None
        if y is not None:
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1), ignore_index=-1)
        return logits, loss


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
    """The ops that ``model`` ran; results must equal those of ``stock`` in both modes."""
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
