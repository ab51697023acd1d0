"""``fuse`` swaps only what is proved equal, not layers that code may call one by one."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from support.fuse_models import Blocks, Owner, X, check, first, pair
from torch import nn

from mlpkern import fuse


class Sliced(Owner):
    def forward(self, x):
        pre = self.net[:-1](x)
        return self.out(self.net[-1](pre)) + pre.sum(-1, keepdim=True)


class InABranch(Owner):
    def forward(self, x):
        if x.sum() > 1e9:
            return self.net(x)
        return self.out(self.net[0](x))


class InALoop(Owner):
    def forward(self, x):
        for i in range(len(self.net) - 1):
            x = self.net[i](x)
        return x


class InASecondMethod(Owner):
    def encode(self, x):
        return self.net[0](x)

    def forward(self, x):
        return self.out(self.net(x)) + self.encode(x).sum()


class InAPublicMethod(Owner):
    @torch.no_grad()
    def encode(self, x):
        return self.net[0](x)


class ByChildren(Owner):
    def forward(self, x):
        return next(next(self.children()).children())(x) if len(x) else x


class ByGetattr(Owner):
    def encode(self, x):
        return getattr(self, "n" + "et")[0](x)


class ByModules(Owner):
    def encode(self, x):
        return next(m for m in self.modules() if isinstance(m, nn.Linear))(x)


class ByAFlag(Owner):
    raw = False

    def forward(self, x):
        net = self.net
        return net[0](x) if self.raw else net(x)


class ByAnArgument(Owner):
    def forward(self, x, raw=None):
        net = self.net
        return net(x) if raw is None else net[0](x)


class ByAnException(Owner):
    def forward(self, x):
        net = self.net
        try:
            return net(x)
        except RuntimeError:
            return net[0](x[..., :4])


class ByAFunction(Owner):
    def encode(self, x):
        return first(self, x)


class ByForward(Owner):
    def forward(self, x):
        net = self.net
        return net(x) + net[0].forward(x)


class InAnotherModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Owner()

    def forward(self, x):
        return self.body(x) + self.body.net[0](x).sum()


class InAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Owner()
        self.nets = [self.body.net]

    def forward(self, x):
        return self.body(x) + self.nets[0][0](x).sum()


class OwnSequential(nn.Sequential):
    def encode(self, x):
        return self[0](x)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Sliced, "the forward of Sliced calls them one by one"),
        (InABranch, "the forward of InABranch may call them one by one"),
        (InALoop, "the forward of InALoop "),
        (InASecondMethod, "0 is also used by encode of InASecondMethod (it names net)"),
        (InAPublicMethod, "0 is also used by encode of InAPublicMethod (it names net)"),
        (ByChildren, "it reaches every layer by children"),
        (ByGetattr, "it reaches every layer by "),
        (ByModules, "it reaches every layer by modules"),
        (ByAFlag, "line "),
        (ByAnArgument, "the forward of ByAnArgument calls them one by one"),
        (ByAnException, "line "),
        (ByAFunction, "it reaches every layer by passing itself on"),
        (ByForward, "the forward calls Linear.forward itself"),
        (InAnotherModule, "the forward of InAnotherModule calls them one by one"),
        (InAList, "the forward of InAList may call them one by one (it names nets)"),
        (lambda: OwnSequential(*pair()), "0 is also used by encode"),
    ],
)
def test_whoever_takes_a_sequential_apart_stops_it(make, reason):
    model = make()
    assert reason in check(model, swaps=0)
    call = "encode" if hasattr(model, "encode") else "__call__"
    model.raw = True
    stock = copy.deepcopy(model)
    fuse(model)
    torch.testing.assert_close(getattr(model, call)(X), getattr(stock, call)(X))


def test_a_hook_that_takes_a_sequential_apart():
    for hooked in (lambda model: model, lambda model: model.net, lambda model: model.out):
        model = Owner()
        net = nn.ModuleList([model])
        hooked(model).register_forward_hook(lambda m, args, out, net=net: net[0].net[0](X))
        assert "hook" in check(model, swaps=0)
    model = Owner()
    model.net.register_forward_hook(lambda module, args, output: module[0](args[0]))
    assert "hook" in check(model, swaps=0)
    seen: list[torch.Size] = []
    model = Owner()
    model.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    check(model, swaps=1)
    assert seen


def test_functions_that_a_module_keeps():
    model = Owner()
    model.step = functools.partial(nn.Sequential.__getitem__, model.net)
    assert "step of Owner keeps what they are in" in check(model, swaps=0)
    model = Owner()
    net, model.step = model.net, lambda x: net[0](x)
    assert "step of Owner keeps what they are in" in str(fuse(model))
    model = Owner()
    model.step = lambda x: model.net[0](x)
    assert "step of Owner (it names net)" in str(fuse(model))
    model = Owner()
    model.scale = first_row
    check(model, swaps=1)


def first_row(x: torch.Tensor) -> torch.Tensor:
    return max(x, x[0])


class Branching(Owner):
    """A model that cannot be traced, but uses its Sequential only to call it."""

    def forward(self, x, *, noisy=False):
        if x.sum() > 0 or noisy:
            return self.out(self.net(x))
        return self.net(x).sum(-1, keepdim=True) + sum(p.sum() for p in self.net.parameters())


def test_whole_calls_do_not_stop_it():
    check(Blocks(), swaps=3)
    check(Blocks(), X, torch.tensor(2.0), swaps=3)
    check(Branching(), swaps=1)
    check(Branching(), -X, swaps=1)
    check(nn.ModuleDict({"a": Owner()})["a"], swaps=1)
    check(nn.DataParallel(Owner()), swaps=1)
    check(nn.Sequential(Owner(), nn.Sequential(nn.Linear(1, 2), nn.Tanh())), swaps=2)


def test_a_sequential_that_two_modules_have():
    one, two = Owner(), Sliced()
    two.net = one.net
    model = nn.Sequential(one, nn.Linear(1, 4), two)
    assert "the forward of 2 calls them one by one" in check(model, swaps=0)
    two = Owner()
    two.net = one.net
    check(nn.Sequential(one, nn.Linear(1, 4), two), swaps=1)
