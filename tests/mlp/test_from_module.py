"""``MLPParams.from_module`` reads the forward of a model and refuses what it cannot express."""

from __future__ import annotations

import copy
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import mlpkern
from mlpkern import MLPParams
from mlpkern.lm import MLPLanguageModel
from mlpkern.lm.model.config import INITS

V, D, T, H, C = 11, 4, 3, 16, 11
IDS = torch.randint(0, V, (50, T))


class Net(nn.Module):
    """Layers in an arbitrary order; subclasses have another forward."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[torch.Tensor] = []
        self.l2 = nn.Linear(H, C)
        self.l1 = nn.Linear(T * D, H)
        self.act = nn.Tanh()
        self.C = nn.Embedding(V, D)
        self.flat = nn.Flatten()
        self.norm = nn.BatchNorm1d(H)
        self.drop = nn.Dropout(0.1)

    def forward(self, ids):
        return self.l2(self.act(self.l1(self.flat(self.C(ids)))))


def check(model: nn.Module, ids: torch.Tensor = IDS) -> MLPParams:
    """The parameters of ``model``, with which `evaluate` must give the loss of the model."""
    params = MLPParams.from_module(model)
    targets = torch.randint(0, C, (len(ids),))
    with torch.no_grad():
        logits = model(ids)
        logits = logits[0] if isinstance(logits, tuple) else logits
        expected = F.cross_entropy(logits, targets)
    torch.testing.assert_close(mlpkern.evaluate(params, ids, targets).loss, expected)
    assert all(isinstance(tensor, nn.Parameter) for tensor in params.tensors())
    return params


def with_forward(forward, base: type[Net] = Net) -> Net:
    return type("Net", (base,), {"forward": forward})()


def columns(e: torch.Tensor, *order: int) -> torch.Tensor:
    return torch.cat([e[:, i] for i in order], 1)


# What it accepts


FORWARDS = {
    "layers declared in another order": Net.forward,
    "view": lambda s, x: s.l2(torch.tanh(s.l1(s.C(x).view(len(x), -1)))),
    "view of sizes": lambda s, x: s.l2(s.l1(s.C(x).view(x.shape[0], x.size(1) * D)).tanh()),
    "flatten": lambda s, x: s.l2(F.tanh(s.l1(s.C(x.long()).flatten(1)))),
    "cat of unbind": lambda s, x: s.l2(s.act(s.l1(torch.cat(torch.unbind(s.C(x), 1), 1)))),
    "cat of columns": lambda s, x: s.l2(s.act(s.l1(columns(s.C(x), 0, 1, 2)))),
    "the weight by hand": lambda s, x: F.linear(
        s.act(F.linear(F.embedding(x, s.C.weight).flatten(1), s.l1.weight, s.l1.bias)),
        s.l2.weight, s.l2.bias),
    "indexing": lambda s, x: s.l2(s.act(s.l1(s.C.weight[x].view(-1, T * D)))),
    "ops": lambda s, x: s.l2(
        mlpkern.linear_tanh(mlpkern.embedding_gather(x, s.C.weight), s.l1.weight, s.l1.bias)),
    "fused op": lambda s, x: s.l2(
        mlpkern.embedding_linear_tanh(x, s.C.weight, s.l1.weight, s.l1.bias)),
    "loss if asked": lambda s, x, targets=None: (Net.forward(s, x), None if targets is None else 1),
}  # fmt: skip


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS.keys())
def test_forwards_that_are_an_mlp(forward):
    model = with_forward(forward)
    params = check(model)
    parts = (model.C.weight, model.l1.weight, model.l1.bias, model.l2.weight, model.l2.bias)
    assert all(one is other for one, other in zip(params.tensors(), parts, strict=True))


def test_one_tanh_between_different_layers():
    act = nn.Tanh()
    model = nn.Sequential(
        nn.Embedding(V, D), nn.Flatten(), nn.Linear(T * D, H), act, nn.Linear(H, H), act,
        nn.Linear(H, C),
    )  # fmt: skip
    tensors = list(model.parameters())
    for change in (mlpkern.fuse, mlpkern.unfuse, list):
        assert all(a is b for a, b in zip(check(model).tensors(), tensors, strict=True))
        assert change(model)


def test_wrapped_models():
    check(torch.compile(Net(), backend="eager"))
    check(nn.DataParallel(Net()))
    mlpkern.fuse(model := Net().double())
    assert check(model).dtype is torch.float64


def test_nothing_of_the_module_changes():
    class Counting(Net):
        def forward(self, ids):
            self.calls = getattr(self, "calls", 0) + 1
            self.seen += 1
            self.log.append(ids)
            return super().forward(ids)

    model = Counting()
    model.register_buffer("seen", torch.zeros(()))
    model.l1.eval()
    state = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    generator = torch.get_rng_state()
    with torch.no_grad():
        MLPParams.from_module(model)
    assert torch.equal(generator, torch.get_rng_state())
    assert [m.training for m in model.modules()] == modes
    assert not hasattr(model, "calls")
    assert model.log == []
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


# What it refuses


def refused(model: nn.Module) -> str:
    with pytest.raises(ValueError, match=r"^from_module: ") as caught:
        MLPParams.from_module(model)
    return str(caught.value)


def residual(self, x):
    h = self.act(self.l1(self.flat(self.C(x))))
    return self.l2(h + h)


def skip(self, x):
    e = self.flat(self.C(x))
    h = self.l1(e)
    return self.l2(self.act(h) + h)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (residual, "layer 4 is add"),
        (skip, "add in its forward takes 2 tensors"),
        (lambda s, x: s.l2(torch.relu(s.l1(s.flat(s.C(x))))), "layer 3 is relu"),
        (lambda s, x: s.l2(s.norm(s.act(s.l1(s.flat(s.C(x)))))), "layer 4 is BatchNorm1d"),
        (lambda s, x: s.l2(s.drop(s.act(s.l1(s.flat(s.C(x)))))), "layer 4 is Dropout"),
        (
            lambda s, x: s.l2(F.dropout(s.act(s.l1(s.flat(s.C(x)))), 0.5, s.training)),
            "layer 4 is dropout",
        ),
        (lambda s, x: s.act(s.l2(s.act(s.l1(s.flat(s.C(x)))))), "the last Linear is missing"),
        (lambda s, x: s.l2(s.act(s.l1(s.flat(s.C(x.flip(1)))))), "flip"),
        (lambda s, x: s.l2(s.act(s.l1(s.C(x).transpose(1, 2).flatten(1)))), "transpose"),
        (
            lambda s, x: s.l2(s.act(s.l1(columns(s.C(x), 2, 1, 0)))),
            "its logits differ by",
        ),
        (lambda s, x: s.l2(s.act(s.l1(s.C(x)))), "must take ids|joins|raised RuntimeError"),
        (lambda s, x: s.l2(s.act(s.l1(s.flat(s.C(x))))).log_softmax(1), "layer 5 is log_softmax"),
        (
            lambda s, x: s.l2(s.act(s.l1(s.flat(s.C(x))))) if x.sum() > 0 else x,
            "does not show how it uses its layers: its forward cannot be traced",
        ),
        (
            lambda s, x: s.l2(s.act(s.l1(s.flat(s.C(x))))) if s.training else s.l2(s.C(x)),
            "must have the layers",
        ),
        (
            lambda s, x: s.l2(F.linear(s.flat(s.C(x)), s.l1.weight.abs(), s.l1.bias).tanh()),
            "linear in its forward takes 2 tensors",
        ),
    ],
)
def test_forwards_that_are_something_else(forward, message):
    said = refused(with_forward(forward))
    assert any(part in said for part in message.split("|")), said


def test_modules_without_a_forward_in_python():
    parts = (nn.Embedding(V, D), nn.Flatten(), nn.Linear(T * D, H), nn.Tanh(), nn.Linear(H, C))
    assert "got a ScriptModule" in refused(torch.jit.script(nn.Sequential(*parts)))
    assert "does not show how it uses its layers" in refused(nn.ModuleList(parts))


def test_a_layer_used_twice_and_tied_weights():
    layer, act = nn.Linear(D, D), nn.Tanh()
    model = nn.Sequential(nn.Embedding(V, D), nn.Flatten(), layer, act, layer, act, nn.Linear(D, V))
    assert "every layer must have its own Parameters, (4, 4) is in two layers" in refused(model)
    model = MLPLanguageModel(V, 1, D, D)
    model.output.weight = model.embedding.weight
    assert "every layer must have its own Parameters" in refused(model)


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


def shadow(layer: nn.Linear) -> None:
    weight = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", weight)


@pytest.mark.parametrize("which", ["l1", "l2"])
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        parametrizations.weight_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: parametrize.register_parametrization(layer, "bias", Half()),
        lambda layer: layer.register_forward_hook(lambda module, args, output: output * 2),
        lambda layer: layer.register_full_backward_hook(lambda *_: None),
        lambda layer: setattr(layer, "forward", lambda x: x),
        shadow,
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_something_recomputes(which, change):
    model = Net()
    change(getattr(model, which))
    refused(model)
    model = MLPLanguageModel(V, T, D, H)
    change(model.hidden[0] if which == "l1" else model.output)
    refused(model)


class Protocol(nn.Module):
    """A model that names its parts itself, as `MLPLanguageModel` does."""

    relu = False

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(V, D), nn.Linear(H, C)
        self.l1 = nn.Linear(T * D, H)
        self.drop = nn.Dropout(0.0)

    def hidden_parameters(self):
        return [(self.l1.weight, self.l1.bias)]

    def forward(self, ids):
        h = self.l1(self.embedding(ids).flatten(1))
        return self.output(self.drop(h.relu() if self.relu else h.tanh()))


def test_what_a_model_says_of_itself_is_checked():
    check(Protocol())
    model = Protocol()
    model.relu = True
    nn.init.zeros_(model.output.weight)  # so that its own logits hide the ReLU
    assert "its logits differ by" in refused(model)
    model = Protocol()
    model.drop.p = 0.5
    assert "its logits differ by" in refused(model)


def test_the_language_model_is_checked_once_for_its_shapes():
    for init in INITS:
        for kernels in ("fused", "stock"):
            check(MLPLanguageModel(V, T, D, (H, 5), init=init, kernels=kernels))
    models = [MLPLanguageModel(V, T, D, (H, 5), seed=seed) for seed in range(20)]
    times = []
    for model in models:
        started = time.perf_counter()
        MLPParams.from_module(model)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.002
