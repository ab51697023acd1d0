"""Models for the tests of ``fuse`` and ``unfuse``, and a check of what ``fuse`` did."""

from __future__ import annotations

import copy

import torch
from torch import nn

from mlpkern import fuse

IDS = torch.randint(0, 27, (9, 3))
X = torch.randn(3, 4)


def makemore() -> nn.Sequential:
    return nn.Sequential(
        nn.Embedding(27, 10), nn.Flatten(), nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 27)
    )


class Model(nn.Module):
    """The layers are attributes that share one activation; some layers are in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(27, 10)
        self.flat = nn.Flatten(-2)
        self.first = nn.Linear(30, 8)
        self.act = nn.Tanh()
        self.more = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8, bias=False)])
        self.out = nn.Linear(8, 27)
        self.loss = nn.CrossEntropyLoss(ignore_index=3)
        nn.init.zeros_(self.first.bias)

    def reset(self) -> None:
        nn.init.zeros_(self.first.weight)

    def forward(self, ids):
        h = self.act(self.first(self.flat(self.table(ids))))
        for layer in self.more:
            h = self.act(layer(h))
        return self.loss(self.out(h), ids[:, 0])[None]


def pair() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh())


class Owner(nn.Module):
    """A model with its layers in a Sequential; subclasses have another forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = pair()
        self.out = nn.Linear(4, 1)

    def forward(self, x):
        return self.out(self.net(x))


def check(model: nn.Module, *inputs: torch.Tensor, swaps: int, call: str = "__call__") -> str:
    """Fuse ``model``, check its outputs and the number of swaps; what ``fuse`` said."""
    stock = copy.deepcopy(model)
    result = fuse(model)
    for training in (True, False):
        results = [getattr(m.train(training), call)(*inputs or (X,)) for m in (stock, model)]
        torch.testing.assert_close(*results)
    assert len(result) == swaps, result
    assert swaps or result.refused
    return str(result)


def first(model: Owner, x: torch.Tensor) -> torch.Tensor:
    return model.net[0](x)


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([pair() for _ in range(3)])

    def forward(self, x, scale=None):
        for block in self.blocks:
            x = block(x)
        if scale is not None:
            x = x * scale
        if x.dim is None:
            raise ValueError("never")
        return x
