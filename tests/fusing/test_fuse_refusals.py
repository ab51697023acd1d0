"""What ``fuse`` refuses, with the reason that it gives."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.utils.parametrize as parametrize
from support.fuse_models import IDS, X
from torch import nn

from mlpkern import fuse


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
