"""``fuse`` swaps only what is proved equal: whoever may call the layers one by one stops it."""

from __future__ import annotations

import copy
import functools
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import mlpkern
from mlpkern import fuse

X = torch.randn(3, 4)


def pair() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh())


class Owner(nn.Module):
    """A model whose layers stand in a Sequential; every test gives it another forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = pair()
        self.out = nn.Linear(4, 1)

    def forward(self, x):
        return self.out(self.net(x))


def check(model: nn.Module, *inputs: torch.Tensor, swaps: int, call: str = "__call__") -> str:
    """Fuse ``model``: the same outputs and so many swaps, or a reason that names the layers."""
    stock = copy.deepcopy(model)
    result = fuse(model)
    for training in (True, False):
        results = [getattr(m.train(training), call)(*inputs or (X,)) for m in (stock, model)]
        torch.testing.assert_close(*results)
    assert len(result) == swaps, result
    assert swaps or result.refused
    return str(result)


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


def first(model: Owner, x: torch.Tensor) -> torch.Tensor:
    return model.net[0](x)


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


class Branching(Owner):
    """Cannot be traced, but names its Sequential only to call it."""

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


class Makemore(nn.Module):
    """The MLP of makemore: it shifts the ids in place."""

    def __init__(self) -> None:
        super().__init__()
        self.block_size, self.vocab_size = 3, 27
        self.wte = nn.Embedding(28, 10)
        self.mlp = nn.Sequential(nn.Linear(30, 8), nn.Tanh(), nn.Linear(8, 27))

    def get_block_size(self):
        return self.block_size

    def forward(self, idx, targets=None):
        embs = []
        for _ in range(self.block_size):
            tok_emb = self.wte(idx)
            idx = torch.roll(idx, 1, 1)
            idx[:, 0] = self.vocab_size
            embs.append(tok_emb)
        logits = self.mlp(torch.cat(embs, -1))
        loss = None
        if targets is not None:
            loss = F.cross_entropy(
                logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1
            )
        return logits, loss


def test_the_mlp_of_makemore():
    ids = torch.randint(0, 27, (5, 8))
    answer = check(Makemore(), ids, ids, swaps=2)
    assert "mlp.0 + mlp.1: Linear + Tanh -> LinearTanh" in answer
    assert "wte: left as is, its output is joined by cat: write mlpkern.embedding_gather" in answer
    assert "model: cross_entropy -> mlpkern.cross_entropy" in answer


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.lin, self.act = nn.Embedding(4, 4), nn.Linear(4, 4), nn.Tanh()
        self.lin.weight = self.emb.weight

    def forward(self, ids, *, scale=2.0):
        return self.act(self.lin(self.emb(ids))) * scale


class Called(Tied):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) + 1


class Scripted(Tied):
    def forward(self, ids):
        return self.act(self.lin(self.scripted(self.emb(ids))))


def test_scripted_modules():
    scripted = torch.jit.script(pair())
    assert "it is a ScriptModule: fuse the module first" in str(fuse(scripted))
    check(nn.Sequential(scripted, pair()), swaps=1)
    model = Scripted()
    model.scripted = scripted
    check(model, torch.randint(0, 4, (3,)), swaps=1)


def test_unusual_models():
    ids = torch.randint(0, 4, (3,))
    for model in (Tied(), Called()):
        check(model, ids, swaps=1)
        assert model.lin.weight is model.emb.weight
    check(Tied().bfloat16(), ids, swaps=1)
    assert len(fuse(Owner().to("meta"))) == 1
    assert "LazyLinear is a subclass" in str(fuse(nn.Sequential(nn.LazyLinear(3), nn.Tanh())))
    assert "compiled already" in str(fuse(torch.compile(Owner(), backend="eager")))
    layer = nn.TransformerEncoderLayer(4, 1, 8, dropout=0.0, activation=nn.Tanh())
    check(nn.Sequential(layer), torch.randn(2, 3, 4), swaps=0)
    partial = functools.partial(first, model := Owner())
    model.step = partial
    assert "step" in check(model, swaps=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: nn.utils.weight_norm(layer),
        lambda layer: nn.utils.spectral_norm(layer),
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_a_hook_recomputes(change):
    model = pair()
    change(model[0])
    result = fuse(model)
    assert not result
    assert "is not a Parameter of the Linear" in str(result)


def test_a_thousand_layers_take_seconds():
    started = time.perf_counter()
    assert len(fuse(nn.Sequential(*(Owner() for _ in range(500))))) == 500
    deep = Blocks()
    deep.blocks = nn.ModuleList([pair() for _ in range(500)])
    assert len(fuse(deep)) == 500
    assert time.perf_counter() - started < 60
    assert mlpkern.unfuse(deep)
