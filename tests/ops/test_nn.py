"""The layers have the same parameters, initialization, state_dict and results as torch's."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

import mlpkern
from mlpkern.nn import CrossEntropyLoss, EmbeddingFlatten, EmbeddingGather, LinearTanh

PAIRS = [
    (lambda: EmbeddingGather(27, 10, padding_idx=3), lambda: nn.Embedding(27, 10, padding_idx=3)),
    (lambda: LinearTanh(30, 20), lambda: nn.Linear(30, 20)),
    (lambda: LinearTanh(30, 20, bias=False), lambda: nn.Linear(30, 20, bias=False)),
    (
        lambda: LinearTanh(30, 20, device="cpu", dtype=torch.float64),
        lambda: nn.Linear(30, 20, device="cpu", dtype=torch.float64),
    ),
    (
        lambda: CrossEntropyLoss(torch.arange(5.0), ignore_index=2, label_smoothing=0.1),
        lambda: nn.CrossEntropyLoss(torch.arange(5.0), ignore_index=2, label_smoothing=0.1),
    ),
]


@pytest.mark.parametrize(("ours", "stock"), PAIRS)
def test_same_parameters_initialization_and_state(ours, stock):
    made = []
    for make in (ours, stock):
        torch.manual_seed(3)
        made.append(make())
    mine, theirs = made
    assert isinstance(mine, type(theirs))
    assert mine.extra_repr() == theirs.extra_repr()
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], tensor)
        assert mine.state_dict()[name].dtype == tensor.dtype
    mine.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(mine.state_dict(), strict=True)


def test_layers_compute_what_torch_computes(backend, device):
    ids = torch.randint(0, 27, (32, 3), device=device)
    target = torch.randint(0, 20, (32,), device=device)
    weight = torch.rand(20, device=device)
    for dtype in (torch.float32, torch.float64):
        ours = nn.Sequential(EmbeddingGather(27, 10, padding_idx=3), LinearTanh(30, 20))
        ours = ours.to(device, dtype)
        stock = nn.Sequential(
            nn.Embedding(27, 10, padding_idx=3), nn.Flatten(-2), nn.Linear(30, 20), nn.Tanh()
        ).to(device, dtype)
        for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
            theirs.data.copy_(mine.data)
        losses = []
        for model, loss in ((ours, CrossEntropyLoss), (stock, nn.CrossEntropyLoss)):
            criterion = loss(weight.to(dtype), ignore_index=4, label_smoothing=0.1)
            losses.append(criterion.to(device)(model(ids), target))
            losses[-1].backward()
        torch.testing.assert_close(*losses)
        for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("ours", [pair[0] for pair in PAIRS] + [lambda: EmbeddingFlatten(5, 2)])
def test_pickle_and_deepcopy(ours):
    layer = ours()
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert type(other) is type(layer)
        assert repr(other) == repr(layer)
        for name, tensor in layer.state_dict().items():
            assert torch.equal(other.state_dict()[name], tensor)


@pytest.mark.parametrize(
    "options", [{"max_norm": 0.0}, {"scale_grad_by_freq": True}, {"sparse": True}]
)
def test_embedding_options_that_are_not_supported(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"^EmbeddingGather: {name} is not supported"):
        EmbeddingGather(27, 10, **options)
    with pytest.raises(ValueError, match=f"^EmbeddingGather: {name} is not supported"):
        EmbeddingGather.from_pretrained(torch.randn(27, 10), **options)


def test_from_pretrained():
    weight = torch.randn(5, 2)
    layer = EmbeddingGather.from_pretrained(weight, freeze=False, padding_idx=1)
    ids = torch.tensor([[0, 1], [4, 4]])
    assert torch.equal(layer(ids), weight[ids].flatten(1))
    layer(ids).sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1, 0, 0, 0, 2]


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 4, 3)], ids=str)
def test_embedding_flatten_is_embedding_and_flatten_of_any_ids(backend, device, shape):
    layer = EmbeddingFlatten(27, 10).to(device)
    ids = torch.randint(0, 27, shape, device=device)
    assert torch.equal(layer(ids), layer.weight[ids].flatten(1))


def test_deprecated_arguments_of_the_loss():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = CrossEntropyLoss(size_average=False)
    assert loss.reduction == "sum"


def test_integer_targets_torch_refuses():
    logits = torch.randn(4, 5)
    target = torch.tensor([0, 4, 2, 1], dtype=torch.int16)
    expected = nn.CrossEntropyLoss()(logits, target.long())
    torch.testing.assert_close(mlpkern.nn.CrossEntropyLoss()(logits, target), expected)
