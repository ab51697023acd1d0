"""Options given as NumPy numbers or 0-d tensors: accepted as in torch, with the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mlpkern
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import TrainConfig, seed_for

FLOATS = {
    "float32": np.float32, "float64": np.float64, "float16": np.float16, "tensor": torch.tensor,
    "tensor64": lambda value: torch.tensor(value, dtype=torch.float64),
}  # fmt: skip
INTS = {"int64": np.int64, "int8": np.int8, "tensor": torch.tensor, "array": np.array}
X, T = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 1])
floats = pytest.mark.parametrize("kind", list(FLOATS))


@floats
def test_label_smoothing(kind):
    value = FLOATS[kind](0.1)
    loss = mlpkern.cross_entropy(X, T, label_smoothing=value)
    assert torch.equal(loss, mlpkern.cross_entropy(X, T, label_smoothing=float(value)))
    torch.testing.assert_close(loss, F.cross_entropy(X, T, label_smoothing=value))
    layer = mlpkern.nn.CrossEntropyLoss(label_smoothing=value)
    assert torch.equal(layer(X, T), loss)


@pytest.mark.parametrize("kind", list(INTS))
def test_ids_among_the_options(kind):
    two = INTS[kind](2)
    loss = mlpkern.cross_entropy(X, T, ignore_index=two)
    torch.testing.assert_close(loss, F.cross_entropy(X, T, ignore_index=two))
    weight = torch.randn(5, 3, requires_grad=True)
    mlpkern.embedding_gather(T, weight, padding_idx=two).sum().backward()
    assert weight.grad[2].abs().sum() == 0
    assert weight.grad[1].abs().sum() > 0


@pytest.mark.parametrize("value", [np.float64(0.1), torch.tensor(0.1, dtype=torch.float64)])
def test_they_are_taken_within_a_compiled_function(value):
    index = np.int64(2)

    def loss(op):
        return op(X, T, label_smoothing=value, ignore_index=index)

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(mlpkern.cross_entropy), compiled(F.cross_entropy))


@pytest.mark.parametrize(
    "value",
    [
        "0.1",
        None,
        0.1j,
        np.array([0.1]),
        torch.tensor([0.1]),
        torch.tensor(0.1, requires_grad=True),
    ],
)
def test_what_torch_refuses_is_refused(value):
    for op in (F.cross_entropy, mlpkern.cross_entropy):
        with pytest.raises(TypeError, match="label_smoothing"):
            op(X, T, label_smoothing=value)
    with pytest.raises(TypeError, match="eps must be a float"):
        train("adamw", eps=value)
    for option in ("ignore_index", "padding_idx"):
        op = mlpkern.cross_entropy if option == "ignore_index" else mlpkern.embedding_gather
        with pytest.raises(TypeError, match=f"{option} must be an int"):
            op(*((X, T) if option == "ignore_index" else (T, X)), **{option: 2.0})


def train(optimizer="sgd", **options):
    generator = torch.Generator().manual_seed(3)
    sizes = ((5, 2), (4, 4), (4,), (5, 4), (5,))
    tensors = [torch.randn(size, generator=generator) for size in sizes]
    params = mlpkern.MLPParams.from_tensors(tensors)
    ids = torch.randint(5, (20, 2), generator=generator)
    rows = torch.randint(20, (6, 3), generator=generator)
    given = {"lr": 0.1, **options}
    losses = mlpkern.train_steps(params, ids, ids[:, 0], rows, optimizer=optimizer, **given)
    return [losses, *params.tensors()]


@floats
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("sgd", {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01, "label_smoothing": 0.1}),
        ("sgd", {"max_grad_norm": 0.1, "input_dropout": 0.2, "hidden_dropout": 0.3}),
        ("adamw", {"lr": 0.01, "eps": 0.001, "betas": (0.8, 0.9)}),
    ],
)
def test_options_of_train_steps(kind, optimizer, options):
    make = FLOATS[kind]
    given = {n: tuple(map(make, v)) if n == "betas" else make(v) for n, v in options.items()}
    plain = {n: tuple(map(float, v)) if n == "betas" else float(v) for n, v in given.items()}
    seed = np.int64(7) if kind.startswith("float") else torch.tensor(7)
    for got, expected in zip(
        train(optimizer, seed=seed, **given), train(optimizer, seed=7, **plain), strict=True
    ):
        assert torch.equal(got, expected)


def test_a_config_keeps_numbers_of_python():
    config = TrainConfig(
        steps=np.int64(10), hidden=(np.int32(8),), lr=((np.int64(0), np.float32(0.1)),),
        momentum=np.float32(0.5), max_grad_norm=torch.tensor(2.0), seed=torch.tensor(3),
    )  # fmt: skip
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert type(config.momentum) is float


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 10**24}, f"seed must be below 2^64, got {10**24}"),
        ({"split_seed": -1}, "split_seed must be at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5 (float)"),
        ({"steps": 10**24}, f"steps must be at most {1 << 40}, got {10**24}"),
        ({"hidden": (10**24,)}, f"hidden must be at most {1 << 40}"),
        ({"steps": "3"}, "steps must be a whole number, got '3' (str)"),
        ({"momentum": "fast"}, "momentum must be a number, got 'fast'"),
        ({"weight_decay": torch.ones(2)}, "weight_decay must be a number"),
    ],
)
def test_a_config_names_the_setting_that_cannot_be(settings, message):
    with pytest.raises(ConfigError) as told:
        TrainConfig(**settings)
    assert str(told.value).startswith(message)


def test_seeds_of_64_bits_and_no_more():
    lm = mlpkern.lm
    dataset = lm.build_dataset(["ab", "ba", "aab", "bba", "b"] * 4, block_size=2)
    largest = 2**64 - 1
    model = lm.MLPLanguageModel(3, 2, 2, 4, seed=largest)
    assert lm.sample(model, dataset.vocab, 2, seed=largest, max_length=4)
    assert seed_for(largest, "init") < 2**63
    for call in (
        lambda: lm.MLPLanguageModel(3, 2, 2, 4, seed=largest + 1),
        lambda: lm.sample(model, dataset.vocab, 2, seed=largest + 1),
        lambda: lm.lr_finder(model, dataset.splits["train"], seeds=[largest + 1]),
        lambda: lm.SweepPlan(seed=largest + 1),
    ):
        with pytest.raises(
            ConfigError, match=r"seeds? must be below 2\^64, got 18446744073709551616"
        ):
            call()
