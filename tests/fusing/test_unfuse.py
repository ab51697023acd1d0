"""``unfuse`` is the exact inverse of ``fuse``, also when the model was changed in between."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from support.fuse_models import IDS, Model, makemore
from torch import nn
from torch.nn.utils import parametrize

import mlpkern
from mlpkern import fuse, unfuse


def anatomy(model: nn.Module) -> list[tuple]:
    """Names, classes, modes, tensors and hooks of all modules, shared ones included."""
    return [
        (name, type(m), m.training, repr(m), sorted(vars(m)), list(map(id, m._parameters.values())))
        for name, m in model.named_modules(remove_duplicate=False)
    ]


def shared_and_tied() -> nn.Module:
    act, tied = nn.Tanh(), nn.Linear(6, 6)
    return nn.Sequential(tied, act, tied, act, nn.Linear(6, 6), nn.ReLU(), tied)


@pytest.mark.parametrize("make", [makemore, Model, shared_and_tied])
def test_unfuse_is_the_inverse(make):
    model = make().double().eval()
    model.train(False)
    before, objects = anatomy(model), len(list(model.modules()))
    swaps = fuse(model)
    assert anatomy(model) != before
    undone = unfuse(model)
    assert len(undone) >= len(swaps)
    assert not undone.refused
    assert anatomy(model) == before
    assert len(list(model.modules())) == objects
    assert len(fuse(model)) == len(swaps)


def test_what_happened_in_between_stays():
    model = makemore()
    fuse(model)
    seen = []
    model[2].register_forward_hook(lambda *_: seen.append("linear"))
    model[3].register_forward_hook(lambda *_: seen.append("tanh"))
    model.double().eval()
    model[2].weight = nn.Parameter(torch.ones(40, 30, dtype=torch.float64))
    model[2].note = "mine"
    assert "2: LinearTanh -> nn.Linear" in str(unfuse(model))
    assert [type(m) for m in model] == [type(m) for m in makemore()]
    assert model[2].weight.sum() == 1200
    assert model[2].note == "mine"
    assert not any(m.training for m in model.modules())
    model(IDS)
    assert seen == ["linear", "tanh"]


def test_copies_and_unpickled_models_are_unfused_by_their_own_parameters():
    model = makemore()
    fuse(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        unfuse(other)
        assert [type(m) for m in other] == [type(m) for m in makemore()]
        assert torch.equal(other[2].weight, model[2].weight)
        assert other[2].weight is not model[2].weight
        torch.testing.assert_close(other(IDS), model(IDS))
        assert isinstance(model[2], mlpkern.nn.LinearTanh)


def test_layers_made_directly():
    model = nn.ModuleList(
        [mlpkern.nn.LinearTanh(3, 4), mlpkern.nn.EmbeddingGather(5, 2), nn.Identity()]
    )
    model.append(mlpkern.nn.CrossEntropyLoss(ignore_index=3))
    result = unfuse(model)
    assert [str(swap) for swap in result] == ["3: CrossEntropyLoss -> nn.CrossEntropyLoss"]
    assert type(model[3]) is nn.CrossEntropyLoss
    assert model[3].ignore_index == 3
    assert [r.names for r in result.refused] == [("0",), ("1",)]
    assert "made as LinearTanh, not by fuse" in str(result)
    assert "cannot be replaced" in str(unfuse(mlpkern.nn.LinearTanh(3, 4)))
    with pytest.raises(TypeError, match=r"^unfuse: model must be an nn.Module, got int"):
        unfuse(3)


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


def test_parametrized_layers():
    model = makemore()
    fuse(model)
    parametrize.register_parametrization(model[2], "weight", Half())
    out = model(IDS)
    undone = unfuse(model)
    assert len(undone) == 2  # the embedding
    assert [refusal.names for refusal in undone.refused] == [("2",), ("3",)]
    assert "remove the parametrization first" in str(undone)
    assert "LinearTanh" in type(model[2]).__name__
    torch.testing.assert_close(model(IDS), out)


def test_a_layer_whose_partner_is_gone():
    model = makemore()
    fuse(model)
    model[3] = nn.ReLU()
    out = model(IDS)
    assert "2: left as is, the Identity that fuse made with it is not in" in str(unfuse(model))
    torch.testing.assert_close(model(IDS), out)


class LoRA(nn.Module):
    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.more = base, nn.Linear(30, 40, bias=False)

    def forward(self, x):
        return self.base(x) + self.more(x)


def test_a_wrapper_over_every_linear_is_right_again_after_unfuse():
    model = makemore()
    stock = copy.deepcopy(model)
    fuse(model)
    torch.manual_seed(0)
    stock[2] = LoRA(stock[2])
    torch.manual_seed(0)
    model[2] = LoRA(model[2])
    assert not torch.allclose(model(IDS), stock(IDS))  # no layer can notice: see the docstring
    unfuse(model)
    torch.testing.assert_close(model(IDS), stock(IDS))


@pytest.mark.filterwarnings("ignore")
def test_quantize_dynamic_leaves_fused_layers_in_float():
    from torch.ao.quantization import quantize_dynamic

    model = makemore().eval()
    fuse(model)
    quantized = quantize_dynamic(model, {nn.Linear})
    assert type(quantized[2]) is mlpkern.nn.LinearTanh
    torch.testing.assert_close(quantized(IDS), model(IDS), rtol=0.05, atol=0.05)
