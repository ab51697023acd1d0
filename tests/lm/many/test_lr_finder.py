"""The learning-rate finder: its sweep against stock torch, the curve, the suggestions, errors."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
import torch
from support.lm.words import make_words
from torch.nn import functional as F

from mlpkern.lm import MLPLanguageModel, lr_finder
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many.lr_finder import LRCurve, _median_curve, _smooth, _suggestions
from mlpkern.lm.model.config import TrainConfig, seed_for
from mlpkern.lm.training.engines import StockEngine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

DATASET = build_dataset(make_words(), block_size=3)
TRAIN = DATASET.splits["train"]


def make_model(seed=0, init="scaled"):
    return MLPLanguageModel(len(DATASET.vocab), 3, 4, 24, init=init, seed=seed)


# the sweep


def test_sweep_is_the_one_written_by_hand_with_stock_torch():
    model = make_model()
    curve = lr_finder(model, TRAIN, low=1e-3, high=1.0, steps=150, batch_size=8, seeds=[5])
    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    embedding, w1, b1, w2, b2 = parameters
    g = torch.Generator().manual_seed(seed_for(5, "batches"))
    x_all, y_all = TRAIN.inputs.long(), TRAIN.targets.long()
    lrs, losses = [], []
    for s in range(150):
        lr = 1e-3 * 1000 ** (s / 149)
        ix = torch.randint(0, len(TRAIN), (8,), generator=g)
        h = torch.tanh(F.linear(F.embedding(x_all[ix], embedding).flatten(1), w1, b1))
        loss = F.cross_entropy(F.linear(h, w2, b2), y_all[ix])
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.data -= lr * gradient
        lrs.append(lr)
        losses.append(loss.item())
    torch.testing.assert_close(curve.lrs, torch.tensor(lrs, dtype=torch.float64))
    assert curve.lrs[0].item() == 1e-3
    torch.testing.assert_close(curve.losses, torch.tensor([losses]), rtol=1e-3, atol=1e-4)


def test_many_seeds_are_the_single_ones_side_by_side_and_models_stay():
    models = [make_model(seed) for seed in range(3)]
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in models]
    options = {"steps": 60, "batch_size": 8}
    together = lr_finder(models, TRAIN, seeds=[4, 1, 9], **options)
    for m, seed in enumerate([4, 1, 9]):
        alone = lr_finder(models[m], TRAIN, seeds=[seed], **options)
        assert torch.equal(alone.losses[0], together.losses[m])
    from_one = lr_finder(models[0], TRAIN, seeds=[4, 1, 9], **options)
    assert torch.equal(from_one.losses[0], together.losses[0])
    assert not torch.equal(from_one.losses[1], together.losses[1])
    for model, old in zip(models, before, strict=True):
        assert all(torch.equal(model.state_dict()[k], v) for k, v in old.items())


def test_a_seed_ends_at_a_loss_that_is_not_finite():
    curve = lr_finder(make_model(), TRAIN, low=1e36, high=3e38, steps=100, seeds=range(3))
    assert curve.diverged == 3
    for losses in curve.losses:
        first = int((~losses.isfinite()).nonzero()[0])
        assert not losses[first:].isfinite().any()
        assert losses[first + 1 :].isnan().all()
    assert curve.smoothed.isfinite().all()
    assert 0 < len(curve.smoothed) < 100


# the suggestions


@pytest.mark.parametrize("seeds", [1, 5])
def test_suggestions_train_better_than_much_smaller_and_larger_rates(seeds):
    curve = lr_finder(make_model(), TRAIN, steps=500, seeds=range(seeds))
    assert curve.steepest is not None
    assert curve.valley is not None

    def dev_loss(lr):
        config = TrainConfig(embedding_dim=4, hidden=(24,), steps=300, lr=((0, lr),))
        state = Trainer.start(config, DATASET, StockEngine()).state
        StockEngine().run_chunk(state, 300)
        return evaluate(state.model, DATASET.splits["dev"]).loss

    for lr in (curve.steepest, curve.valley):
        assert dev_loss(lr) < dev_loss(lr / 20) - 0.05
        assert dev_loss(lr) < dev_loss(10.0) - 0.05


def test_steepest_is_the_middle_of_a_sigmoid_and_valley_the_lowest_point():
    s = torch.arange(1000, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(1000, generator=generator, dtype=torch.float64)
    rise = 1e-9 * (s - 700).clamp(min=0) ** 4
    curve = 3 - torch.sigmoid((s - 400) / 40) + rise + noise
    smoothed, window = _smooth(_median_curve(curve[None]))
    steepest, valley = _suggestions(smoothed, window)
    assert abs(steepest - 400) <= 25
    assert 550 <= valley <= 800


def test_smoothing_keeps_a_line_and_the_window_is_odd():
    line = torch.linspace(5, 1, 333, dtype=torch.float64)
    smoothed, window = _smooth(line)
    assert window == 33
    torch.testing.assert_close(smoothed[32:-32], line[32:-32])
    constant, _ = _smooth(torch.full((57,), 2.5, dtype=torch.float64))
    torch.testing.assert_close(constant, torch.full((57,), 2.5, dtype=torch.float64))


def test_median_counts_ended_seeds_as_infinite_and_ends_at_an_explosion():
    nan, inf = torch.nan, torch.inf
    losses = torch.tensor([[3.0, 2.0, 1.0, nan, nan], [4, 3, 2, 1, nan], [5, 4, inf, nan, nan]])
    assert _median_curve(losses).tolist() == [4.0, 3.0, 2.0]
    assert _median_curve(losses[:2]).tolist() == [3.5, 2.5, 1.5]
    assert _median_curve(torch.tensor([[2.0, 1.0, 3.75, 4.25, 1.0]])).tolist() == [2.0, 1.0, 3.75]
    assert _median_curve(torch.tensor([[nan, nan]])).tolist() == []


def test_a_loss_that_never_falls_gives_no_suggestion():
    rising = torch.linspace(1, 2, 100, dtype=torch.float64)
    assert _suggestions(*_smooth(rising)) == (None, None)
    for short in range(4):
        assert _suggestions(*_smooth(rising[:short])) == (None, None)
    curve = lr_finder(make_model(), TRAIN, low=1e30, high=1e38, steps=20)
    assert (curve.steepest, curve.valley, curve.diverged) == (None, None, 1)


# the table, errors


def test_csv_has_a_column_per_seed_and_nothing_after_an_end():
    lrs = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    losses = torch.tensor([[3.0, 2.0, 1.0], [3.5, torch.inf, torch.nan]])
    curve = LRCurve(lrs, losses, torch.tensor([3.25, 2.5]), 1, None, None, 1)
    assert list(csv.reader(io.StringIO(curve.to_csv()))) == [
        ["lr", "smoothed", "loss_0", "loss_1"],
        ["0.1", "3.250000", "3.000000", "3.500000"],
        ["1", "2.500000", "2.000000", "inf"],
        ["10", "", "1.000000", ""],
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 0.0}, "0 < low < high, both finite in float32, got 0.0 and 10.0"),
        ({"low": 1.0, "high": 1.0}, "0 < low < high"),
        ({"high": float("inf")}, "0 < low < high"),
        ({"high": 1e39}, "0 < low < high, both finite in float32, got 0.0001 and 1e"),
        ({"low": float("nan")}, "0 < low < high"),
        ({"steps": 1}, "steps must be at least 2, got 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seeds": []}, "number of seeds must be at least 1, got 0"),
    ],
)
def test_values_out_of_range_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        lr_finder(make_model(), TRAIN, **settings)


def test_models_and_rows_must_fit():
    with pytest.raises(ConfigError, match="one model for each of 3 seeds, got 2"):
        lr_finder([make_model(), make_model()], TRAIN, seeds=range(3))
    empty = replace(TRAIN, inputs=TRAIN.inputs[:0], targets=TRAIN.targets[:0])
    with pytest.raises(ConfigError, match="training rows must be at least 1, got 0"):
        lr_finder(make_model(), empty)
