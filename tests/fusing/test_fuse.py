"""``fuse``: what it swaps, what stays the same, and what it refuses."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.utils.parametrize as parametrize
from torch import nn

import mlpkern.nn
from mlpkern import fuse


def makemore() -> nn.Sequential:
    return nn.Sequential(
        nn.Embedding(27, 10), nn.Flatten(), nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 27)
    )


IDS = torch.randint(0, 27, (9, 3))


def check_same(model: nn.Module, *inputs: torch.Tensor) -> list[str]:
    """Fuse a copy of ``model``; its results and gradients must not change. What was swapped."""
    fused = copy.deepcopy(model)
    swapped = fuse(fused)
    assert list(fused.state_dict()) == list(model.state_dict())
    results = []
    for m in (model, fused):
        m.zero_grad()
        output = m(*inputs)
        output.pow(2).sum().backward()
        results.append([output.detach(), *(p.grad for p in m.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    return [str(swap) for swap in swapped]


# What it swaps


def test_a_sequential(backend, device):
    assert check_same(makemore().to(device), IDS.to(device)) == [
        "0 + 1: Embedding + Flatten -> EmbeddingFlatten",
        "2 + 3: Linear + Tanh -> LinearTanh",
    ]


def test_sequentials_inside_others():
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 5), nn.Tanh()),
        nn.ModuleDict({"a": nn.Identity()})["a"],
        nn.Sequential(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Dropout(0.0)), nn.Linear(6, 2)),
    )
    assert check_same(model, torch.randn(3, 4)) == [
        "0.0 + 0.1: Linear + Tanh -> LinearTanh",
        "2.0.0 + 2.0.1: Linear + Tanh -> LinearTanh",
    ]


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 5, 3), (2, 2, 5, 3)], ids=str)
@pytest.mark.parametrize("flatten", [nn.Flatten(), nn.Flatten(-2), nn.Flatten(1, -1)], ids=repr)
def test_flatten_of_ids_of_any_rank(shape, flatten):
    if len(shape) == 1 and flatten.start_dim == -2:
        model = nn.Sequential(nn.Embedding(27, 10), flatten, nn.Unflatten(0, (1, -1)))
    else:
        model = nn.Sequential(nn.Embedding(27, 10), flatten)
    assert len(check_same(model, torch.randint(0, 27, shape))) == 1


class Model(nn.Module):
    """The layers as attributes, one activation for all of them, some layers in a list."""

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


def test_attributes():
    assert check_same(Model(), IDS) == [
        "table + flat: Embedding + Flatten -> EmbeddingGather",
        "first + act: Linear + Tanh -> LinearTanh",
        "more.0 + act: Linear + Tanh -> LinearTanh",
        "more.1 + act: Linear + Tanh -> LinearTanh",
        "loss: CrossEntropyLoss -> CrossEntropyLoss (fused)",
    ]


def test_a_second_time_finds_nothing():
    model = makemore()
    assert len(fuse(model)) == 2
    again = fuse(model)
    assert again == []
    assert str(again) == "4: left as is, no nn.Tanh follows it"


# What stays the same


def test_parameters_stay_the_same_objects_and_the_optimizer_works():
    model = makemore()
    before = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fuse(model)
    assert all(after is before[name] for name, after in model.named_parameters())
    start = [p.detach().clone() for p in model.parameters()]
    model(IDS).pow(2).sum().backward()
    optimizer.step()
    for old, new in zip(start, model.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_dtype_mode_and_frozen_parameters_stay():
    model = makemore().double().eval()
    model[2].weight.requires_grad_(False)
    model[2].note = "mine"
    fuse(model)
    assert model[2].weight.dtype is torch.float64
    assert not model[2].weight.requires_grad
    assert not any(module.training for module in model.modules())
    assert model[2].note == "mine"
    assert model.train()[3].training


def test_hooks_that_see_the_same_stay_and_their_handles_work():
    model = makemore()
    seen = []
    handle = model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    model[4].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    assert len(fuse(model)) == 2
    model(IDS)
    assert seen == [(9, 30), (9, 27)]
    handle.remove()
    model(IDS)
    assert len(seen) == 3


def test_a_fused_model_can_be_pickled_and_copied():
    model = makemore()
    fuse(model)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(IDS), model(IDS))
        assert isinstance(other[2], mlpkern.nn.LinearTanh)


def test_the_same_activation_and_a_tied_layer_in_one_sequential():
    act, tied = nn.Tanh(), nn.Linear(6, 6)
    model = nn.Sequential(tied, act, tied, act, nn.Linear(6, 6), nn.ReLU(), tied)
    assert len(check_same(model, torch.randn(4, 6))) == 2


# What it refuses


def refused(model: nn.Module, *inputs: torch.Tensor) -> str:
    """The one reason for leaving the model alone; its results must not change."""
    before, classes = model(*inputs), [type(m) for m in model.modules()]
    result = fuse(model)
    assert list(result) == []
    assert [type(m) for m in model.modules()] == classes
    torch.testing.assert_close(model(*inputs), before)
    (refusal,) = result.refused
    assert refusal.reason in str(result)
    return refusal.reason


X = torch.randn(3, 4)


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def test_subclasses_parametrizations_and_replaced_forwards():
    assert "Doubled is a subclass of Linear" in refused(nn.Sequential(Doubled(4, 5), nn.Tanh()), X)
    layer = parametrize.register_parametrization(nn.Linear(4, 5), "weight", nn.Identity())
    assert "parametrized" in refused(nn.Sequential(layer, nn.Tanh()), X)
    layer = nn.Linear(4, 5)
    layer.forward = lambda input: input
    assert "replaced on the object" in refused(nn.Sequential(layer, nn.Tanh()), X)


def test_hooks_that_would_see_something_else():
    for position in (0, 1):
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        model[position].register_forward_hook(lambda module, args, output: None)
        assert "hook" in refused(model, X)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    model[0].register_full_backward_hook(lambda module, grad_input, grad_output: None)
    assert "hook" in refused(model, X)


@pytest.mark.parametrize(
    "options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}]
)
def test_embedding_options(options):
    model = nn.Sequential(nn.Embedding(27, 4, **options), nn.Flatten())
    assert "not supported" in refused(model, IDS)


def test_flatten_of_other_dimensions():
    model = nn.Sequential(nn.Embedding(27, 4), nn.Flatten(0))
    assert "Flatten(0, -1)" in refused(model, IDS)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.act = nn.Tanh()


class Residual(Base):
    def forward(self, x):
        h = self.lin(x)
        return self.act(h) + h


class ActTwice(Base):
    def forward(self, x):
        return self.act(self.lin(self.act(x)))


class Branch(Base):
    def forward(self, x):
        return self.act(self.lin(x)) if x.sum() > 0 else self.lin(x)


class Option(Base):
    def forward(self, x, raw=False):
        return self.lin(x) if raw else self.act(self.lin(x))


class OnlyInTraining(Base):
    def forward(self, x):
        h = self.lin(x)
        return self.act(h) if self.training else h


class OtherMethod(Base):
    def raw(self, x):
        return self.lin(x)

    def forward(self, x):
        return self.act(self.lin(x))


class Hidden(Base):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = [self.lin]

    def forward(self, x):
        return self.act(self.hidden[0](x))


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Residual, "the output of lin is also used without act"),
        (ActTwice, "act is also applied to something else"),
        (Branch, "cannot be traced"),
        (Option, "cannot be traced"),
        (OnlyInTraining, "the output of lin is also used without act"),
        (OtherMethod, "lin is also used by raw"),
        (Hidden, "keeps them outside the attributes"),
    ],
)
def test_forwards_that_need_the_layers_apart(cls, reason):
    assert reason in refused(cls(), X)
    model = cls().eval()
    fuse(model)
    assert not model.training


def test_a_sequential_taken_apart_by_its_owner():
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

        def forward(self, x):
            return self.net[0](x) + self.net(x)

    assert "the forward of Owner calls them one by one" in refused(Owner(), X)


def test_layers_in_order_that_are_not_called_in_order():
    class Apart(Base):
        def forward(self, x):
            return self.lin(self.act(x))

    result = fuse(Apart())
    assert list(result) == []
    assert str(result) == "lin: left as is, no nn.Tanh follows it"


def test_tracing_leaves_nothing_behind():
    class Keeps(Base):
        def forward(self, x):
            self.last = self.act(self.lin(x))
            return self.last

    model = Keeps()
    assert len(fuse(model)) == 1
    assert not hasattr(model, "last")
    pickle.dumps(model.state_dict())


def test_the_model_itself():
    loss = nn.CrossEntropyLoss()
    result = fuse(loss)
    assert "cannot be replaced in place" in result.refused[0].reason
    assert list(fuse(nn.Linear(2, 2))) == []
    with pytest.raises(TypeError, match=r"^fuse: model must be an nn.Module, got list"):
        fuse([nn.Linear(2, 2), nn.Tanh()])
