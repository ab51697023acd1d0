"""``fuse`` of unusual models: tied, scripted, compiled, reparametrized, huge."""

from __future__ import annotations

import functools
import time

import pytest
import torch
from support.fuse_models import Blocks, Owner, check, first, pair
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import mlpkern
from mlpkern import fuse


class Makemore(nn.Module):
    """The MLP of makemore, which shifts the ids in place."""

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
