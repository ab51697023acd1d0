"""Frozen parameters of ``train_steps``: as in stock torch when the optimizer leaves them out."""

from __future__ import annotations

import pytest
import torch
from support.train_problems import ADAMW, FLOATS, OPTIONS, Problem, check, problem
from torch import nn

import mlpkern
from mlpkern import MLPParams, OptimizerState
from mlpkern.cuda import graphed_train_steps
from mlpkern.ops import train_steps as op

pytestmark = pytest.mark.usefixtures("one_thread")

# For a model with two hidden layers: common choices, weights without biases and the reverse, the
# lowest layers, and all tensors but the last.
FROZEN = {
    "embedding": ("embedding",),
    "biases": ("hidden.0.bias", "hidden.1.bias", "output.bias"),
    "weights": ("hidden.0.weight", "hidden.1.weight", "output.weight"),
    "output": ("output.weight", "output.bias"),
    "first layer": ("hidden.0.weight", "hidden.0.bias"),
    "embedding and a weight": ("embedding", "hidden.0.weight"),
    "lowest": ("embedding", "hidden.0.weight", "hidden.0.bias", "hidden.1.bias"),
    "all but one": (
        "embedding", "hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias",
        "output.weight",
    ),
}  # fmt: skip
# A single block of rows, a folded first layer, several blocks.
SHAPES = [
    {"S": 8},
    {"V": 13, "D": 10, "N": 67, "S": 5},
    {"V": 900, "N": 530, "S": 2, "rows": 600},
]


def frozen_problem(frozen: tuple[str, ...], **sizes: object) -> Problem:
    case = problem(**{"hidden": (16, 9), "C": 5, **sizes})
    case.params.frozen = frozen
    return case


def check_kept(case: Problem, **options: object) -> None:
    """A run changes no bit of frozen tensors and their moments, and changes all the others."""
    params = case.params.clone()
    kind, momentum = options.get("optimizer", "sgd"), options.get("momentum", 0.0)
    state = OptimizerState.zeros(params, kind, momentum)
    moments = [part for part in (state.first, state.second) if part is not None]
    for tensor in [t for part in moments for t in part.tensors()]:
        tensor.fill_(0.25)
    versions = [tensor._version for tensor in params.tensors()]
    data = (case.inputs, case.targets, case.batches)
    lr = options.pop("lr", 0.1)
    mlpkern.train_steps(params, *data, lr, state=state, **options)
    for i, (name, before) in enumerate(case.params.named_tensors().items()):
        after, frozen = params.tensors()[i], name in case.params.frozen
        assert torch.equal(after, before) == frozen, name
        assert (after._version == versions[i]) == frozen, name
        for part in moments:
            assert (part.tensors()[i] == 0.25).all() == frozen, name


@pytest.mark.parametrize("name", FROZEN)
def test_equals_stock_torch_without_them(backend, device, name):
    options = OPTIONS["all of adamw"]
    for sizes in SHAPES[: 1 if backend == "reference" else None]:
        check(frozen_problem(FROZEN[name], device=device, **sizes), **options)
        options = OPTIONS["momentum and decay"]
    check_kept(frozen_problem(FROZEN[name], device=device, S=3), **OPTIONS["all of adamw"])


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_with_a_frozen_embedding_and_a_frozen_bias(backend, device, options):
    frozen = ("embedding", "hidden.1.bias")
    for dtype in FLOATS:
        check(frozen_problem(frozen, device=device, dtype=dtype, S=6), **OPTIONS[options])
    check_kept(frozen_problem(frozen, device=device, S=3), **OPTIONS[options])


@pytest.mark.parametrize("name", FROZEN)
def test_the_way_of_the_ops(name, monkeypatch):
    monkeypatch.setattr(op, "select", lambda _op, _tensor: graphed_train_steps)
    for options in ("all of sgd", "all of adamw"):
        check(frozen_problem(FROZEN[name], S=6), **OPTIONS[options])
    check_kept(frozen_problem(FROZEN[name], S=3), **OPTIONS["all of adamw"])
    case = frozen_problem(FROZEN[name], M=2, S=3)
    losses, params = case.run()
    case.params.frozen = case.params.names()
    for tensor, kept in zip(case.run()[1].tensors(), case.params.tensors(), strict=True):
        assert torch.equal(tensor, kept)
    assert losses.isfinite().all()
    assert params.frozen == FROZEN[name]


def test_nothing_is_trained(backend, device):
    for sizes in SHAPES[:2]:
        case = frozen_problem((), device=device, M=2, **sizes)
        case.params.frozen = case.params.names()
        losses, params = case.run(momentum=0.9, weight_decay=0.1, max_grad_norm=0.1)
        for one, other in zip(params.tensors(), case.params.tensors(), strict=True):
            assert torch.equal(one, other)
        first = case.batches[:1]
        loss = mlpkern.train_steps(case.params, case.inputs, case.targets, first, 0.1)
        assert torch.equal(losses[:, :1], loss)


def test_models_that_share_one_frozen_embedding(backend, device):
    case = frozen_problem(("embedding", "output.bias"), device=device, M=3)
    case.params.embedding.copy_(case.params.embedding[:1].clone().expand(3, -1, -1))
    expected, trained = case.run(momentum=0.9)
    params = case.params.clone()
    params.embedding = params.embedding[0].clone().expand(3, -1, -1)
    losses = mlpkern.train_steps(params, case.inputs, case.targets, case.batches, 0.1, 0.9)
    assert torch.equal(losses, expected)
    for one, other in zip(params.tensors(), trained.tensors(), strict=True):
        assert torch.equal(one, other)


def test_a_run_in_pieces_and_with_frozen_tensors_of_any_strides(backend, device):
    case = frozen_problem(("embedding", "hidden.0.weight"), device=device)
    options = {**OPTIONS["all of adamw"]}
    lr = options.pop("lr")
    whole = case.params.clone()
    data = (case.inputs, case.targets)
    losses = mlpkern.train_steps(whole, *data, case.batches, lr, **options)
    params = case.params.map(lambda t: t.t().clone().t())
    state = OptimizerState.zeros(params, "adamw")
    parts = [
        mlpkern.train_steps(params, *data, rows, lr, state=state, **options)
        for rows in case.batches.split([1, 20, 9])
    ]
    assert torch.equal(torch.cat(parts), losses)
    for one, other in zip(params.tensors(), whole.tensors(), strict=True):
        assert torch.equal(one, other)


def test_a_pretrained_embedding_and_its_release(backend, device):
    table = torch.randn(11, 4)
    model = nn.Sequential(
        nn.Embedding.from_pretrained(table, freeze=True),
        nn.Flatten(),
        nn.Linear(12, 16),
        nn.Tanh(),
        nn.Linear(16, 11),
    ).to(device)
    case = problem(device=device)
    params = MLPParams.from_module(model)
    assert params.frozen == ("embedding",)
    before = [p.detach().clone() for p in model.parameters()]
    mlpkern.train_steps(params, case.inputs, case.targets, case.batches, 0.1, weight_decay=0.1)
    moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert moved == [False, True, True, True, True]
    model[0].weight.requires_grad_(True)
    assert params.frozen == ()
    mlpkern.train_steps(params, case.inputs, case.targets, case.batches, 0.1)
    assert not torch.equal(model[0].weight, before[0])


def test_adamw_leaves_the_moments_of_frozen_tensors_at_zero(backend, device):
    case = frozen_problem(FROZEN["embedding"], device=device)
    state = OptimizerState.zeros(case.params, "adamw")
    data = (case.inputs, case.targets, case.batches, ADAMW["lr"])
    mlpkern.train_steps(case.params, *data, optimizer="adamw", state=state)
    assert not state.first.embedding.any()
    assert not state.second.embedding.any()
    assert state.second.output[0].all()
