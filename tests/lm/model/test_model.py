"""The model: both forwards against the formula written out, initialization, errors."""

from __future__ import annotations

import math

import pytest
import torch

from mlpkern.lm.errors import ConfigError, DataError
from mlpkern.lm.model.mlp import KERNELS, MLPLanguageModel, parameter_shapes
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.words.data import Split


def make(kernels="stock", hidden=(20,), vocab=11, block=3, dim=5, **options):
    return MLPLanguageModel(vocab, block, dim, hidden, kernels=kernels, **options)


def rows(count, vocab=11, block=3, seed=1, dtype=torch.uint8):
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (count, block), generator=g)
    return ids.to(dtype), torch.randint(0, vocab, (count,), generator=g).to(dtype)


def logits_in_float64(model, ids):
    """The formula of Bengio et al. in float64."""
    p = {name: tensor.double() for name, tensor in model.state_dict().items()}
    x = torch.stack([torch.cat([p["embedding.weight"][i] for i in row]) for row in ids.tolist()])
    for i in range(len(model.hidden)):
        x = torch.tanh(x @ p[f"hidden.{i}.weight"].T + p[f"hidden.{i}.bias"])
    return x @ p["output.weight"].T + p["output.bias"]


# equals the formula


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("hidden", [(20,), (20, 7), (13, 1, 9)])
def test_forward_and_loss_equal_the_formula(kernels, hidden):
    model = make(kernels, hidden, seed=3)
    ids, targets = rows(33)
    expected = logits_in_float64(model, ids)
    torch.testing.assert_close(model(ids).double(), expected, rtol=1e-5, atol=1e-6)
    nll = -expected.log_softmax(-1)[torch.arange(33), targets.long()]
    torch.testing.assert_close(model.loss(ids, targets).double(), nll.mean(), rtol=1e-5, atol=0)
    each = model.loss(ids, targets, reduction="none")
    torch.testing.assert_close(each.double(), nll, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [(20,), (20, 7)])
def test_gradients_of_both_forwards_agree(hidden):
    ids, targets = rows(33)
    gradients = []
    for kernels in KERNELS:
        model = make(kernels, hidden, seed=3)
        model.loss(ids, targets).backward()
        gradients.append([p.grad for p in model.parameters()])
    for fused, stock in zip(*gradients, strict=True):
        torch.testing.assert_close(fused, stock, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_gives_the_same_loss(kernels, dtype):
    model = make(kernels)
    expected = model.loss(*rows(9))
    assert torch.equal(model.loss(*rows(9, dtype=dtype)), expected)


def test_leading_dimensions():
    model = make()
    ids, _ = rows(12)
    assert torch.equal(model(ids.view(3, 4, 3)), model(ids).view(3, 4, 11))


# parameters


def test_both_forwards_share_parameters_and_state_dict():
    fused, stock = make("fused"), make("stock")
    shapes = {name: tuple(p.shape) for name, p in fused.state_dict().items()}
    assert shapes == parameter_shapes(11, 3, 5, (20,))
    assert list(shapes) == [name for name, _ in stock.named_parameters()]
    for a, b in zip(fused.parameters(), stock.parameters(), strict=True):
        assert torch.equal(a, b)


def test_lecture_model_has_11897_parameters():
    model = MLPLanguageModel(27, 3, 10, 200)
    assert sum(p.numel() for p in model.parameters()) == 11897


def test_seed_decides_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = make(seed=5), make(seed=5), make(seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.output.weight, again.output.weight)
    assert not torch.equal(first.output.weight, other.output.weight)


def test_scaled_init_starts_at_the_uniform_loss_without_saturation():
    model = MLPLanguageModel(27, 3, 10, 200, seed=1, kernels="stock")
    ids, targets = rows(500, vocab=27)
    assert model.loss(ids, targets).item() == pytest.approx(math.log(27), abs=0.05)
    x = torch.nn.functional.embedding(ids.long(), model.embedding.weight).flatten(1)
    activations = torch.tanh(model.hidden[0](x))
    assert (activations.abs() > 0.99).float().mean() < 0.15


def test_lecture_init_is_standard_normal_everywhere():
    model = MLPLanguageModel(27, 3, 10, 200, init="lecture", seed=1)
    for p in model.parameters():
        slack = 5 / p.numel() ** 0.5  # five standard errors of the mean
        assert abs(p.mean().item()) < slack
        assert abs(p.std().item() - 1) < slack


# evaluation


@pytest.mark.parametrize("kernels", KERNELS)
def test_evaluation_is_the_mean_over_rows_for_any_batch_size(kernels):
    model = make(kernels)
    split = Split(*rows(101))
    logits = logits_in_float64(model, split.inputs)
    target = split.targets.long()
    loss = torch.nn.functional.cross_entropy(logits, target).item()
    accuracy = (logits.argmax(-1) == target).double().mean().item()
    for size in (None, 1, 10, 101, 1000):
        metrics = evaluate(model, split, batch_size=size)
        assert metrics.loss == pytest.approx(loss, rel=1e-6)
        assert metrics.accuracy == pytest.approx(accuracy)
        assert metrics.rows == 101
    assert all(p.grad is None for p in model.parameters())


# errors


def test_errors_name_the_argument():
    with pytest.raises(ConfigError, match=r"hidden must be at least 1, got \[5, 0\]"):
        make(hidden=(5, 0))
    with pytest.raises(ConfigError, match="hidden must be at least 1"):
        make(hidden=())
    with pytest.raises(ConfigError, match="block_size must be at least 1"):
        make(block=0)
    with pytest.raises(ConfigError, match="kernels must be one of fused, stock, got 'fast'"):
        make("fast")
    with pytest.raises(ConfigError, match="init must be one of lecture, scaled"):
        make(init="zeros")
    with pytest.raises(ValueError, match=r"ids must be \(..., 3\), got \(4, 2\)"):
        make()(torch.zeros(4, 2, dtype=torch.uint8))
    with pytest.raises(DataError, match="no rows"):
        evaluate(make(), Split(*rows(0)))
