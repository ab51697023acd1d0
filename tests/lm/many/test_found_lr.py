"""The learning rate found for a run: as good as a grid's best, with the settings of the run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.lm.training import CONFIG, DATASET, OPTIONS, changed

from mlpkern import lm
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many import found_lr
from mlpkern.lm.many.found_lr import _lengths, _lowest, _shortened, find_lr, first_sweep
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.state import TrainState, initial_model
from mlpkern.lm.training.engines import StockEngine

NAMES = lm.build_dataset(lm.embedded_names(), block_size=3)
SGD = TrainConfig(hidden=(64,), steps=1_500)
ADAMW = replace(SGD, optimizer="adamw", schedule="cosine", warmup=100, hidden_dropout=0.1)


# the recommendation


@pytest.mark.parametrize("part", ["whole runs", "parts of runs"])
@pytest.mark.parametrize("config", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_the_run_ends_within_a_fiftieth_of_the_best_of_a_grid(config, part, monkeypatch):
    if part == "parts of runs":  # as of long runs, whose last round is an eighth of the steps
        monkeypatch.setattr(found_lr, "WORK", 0.0)
        monkeypatch.setattr(found_lr, "FEWEST", 10)
    found = find_lr(config, NAMES)
    assert found.trials[-1].steps == (1_500 if part == "whole runs" else 188)
    grid = [found.recommended * 2.0**k for k in range(-4, 5)]
    runs = [config.with_settings(lr=rate) for rate in grid]
    trained = lm.Population([found.config, *runs], NAMES)
    trained.advance(1.0)
    dev = [metrics.loss for metrics in trained.dev().values()]
    assert dev[0] < min(dev) + 0.02
    assert min(dev) < min(dev[1], dev[-1]) - 0.05  # the grid tells rates apart


def test_the_rate_scales_the_whole_schedule_and_nothing_else():
    found = find_lr(CONFIG, DATASET)
    (at, first), (later, second) = found.config.lr
    assert (at, first, later) == (0, found.recommended, 400)
    assert second == pytest.approx(first / 5)
    assert replace(found.config, lr=CONFIG.lr) == CONFIG
    assert found.recommended == float(f"{found.recommended:.3g}")


def test_the_same_seed_finds_the_same_and_others_count():
    first = find_lr(CONFIG, DATASET)
    again = find_lr(CONFIG.with_settings(lr=17.0), DATASET)  # only the shape of lr counts
    assert (again.recommended, again.trials) == (first.recommended, first.trials)
    assert torch.equal(again.curve.losses, first.curve.losses)
    other = find_lr(changed(seed=1), DATASET, curve=first.curve)
    assert all(loss != other.trials[0].dev.get(rate) for rate, loss in first.trials[0].dev.items())


# the settings of the run


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_steps_of_the_sweep_are_those_of_the_run(options):
    """At the same rates the engine `stock` has the same losses."""
    config = changed(**options)
    curve = first_sweep(config, DATASET, low=1e-4, high=0.1, sweep_steps=60)

    class Growing(TrainState):
        def learning_rates(self, steps):
            return curve.lrs[self.step : self.step + steps]

    model = initial_model(config, len(DATASET.vocab))
    state = Growing.start(model, DATASET.splits["train"], config)
    expected = StockEngine().run_chunk(state, 60)
    torch.testing.assert_close(curve.losses[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "cosine"},
        {"warmup": 0.5},
        {"steps": 2_000},
        {"hidden_dropout": 0.5},
        {"weight_decay": 0.05},
        {"max_grad_norm": 0.05},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_reaches_the_trials(settings):
    curve = first_sweep(CONFIG, DATASET)
    plain = find_lr(CONFIG, DATASET, curve=curve).trials[0]
    other = find_lr(changed(**settings), DATASET, curve=curve).trials[0]
    assert all(loss != other.dev[rate] for rate, loss in plain.dev.items() if rate in other.dev)


def test_a_trial_is_the_run_with_its_schedule_in_proportion():
    config = changed(steps=1_000, lr=((0, 0.1), (400, 0.02), (0.75, 0.01)), warmup=100, patience=3)
    short = _shortened(config, 100)
    assert short.lr == ((0, 0.1), (40, 0.02), (75, 0.01))
    assert (short.steps, short.warmup, short.patience) == (100, 10, 0)
    torch.testing.assert_close(
        short.learning_rates(0, 100)[10:], config.learning_rates(0, 1_000)[100::10]
    )
    assert _shortened(config, 1).lr == ((0, 0.02), (1, 0.01))


def test_rounds_are_whole_runs_where_these_are_cheap_and_else_an_eighth():
    assert _lengths(lm.PRESETS["quick"], 27) == [1_250, 5_000, 20_000]
    assert _lengths(lm.PRESETS["best"], 27) == [156, 625, 2_500]
    assert 200_000 / 8 < _lengths(lm.PRESETS["lecture"], 27)[-1] < 200_000
    assert _lengths(changed(steps=500), 27) == [100, 125, 500]
    assert _lengths(changed(steps=3), 27) == [3]


# a round


def test_a_round_goes_on_beyond_the_end_with_the_lowest_loss(monkeypatch):
    asked = []

    def dev_losses(configs, dataset):
        rates = [config.lr[0][1] for config in configs]
        asked.append(rates)
        return [(math.log2(rate) - 3.25) ** 2 if rate < 500 else math.inf for rate in rates]

    monkeypatch.setattr(found_lr, "_dev_losses", dev_losses)
    trials = found_lr._round(changed(lr=0.1), DATASET, 1.0, range(-1, 2))
    assert asked == [[0.5, 1.0, 2.0], [4.0], [8.0], [16.0]]
    assert list(trials.dev) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert math.log2(trials.best) == pytest.approx(3.25)
    trials = found_lr._round(changed(lr=0.1), DATASET, 32.0, range(-1, 2))
    assert math.log2(trials.best) == pytest.approx(3.25)


def test_a_parabola_finds_its_lowest_point_and_an_end_is_the_best_itself():
    assert _lowest({k: (k - 0.4) ** 2 for k in range(-2, 4)}) == pytest.approx(0.4)
    assert _lowest({0: 1.0, 1: 2.0, 2: 3.0}) == 0
    assert _lowest({0: 2.0, 1: 1.0, 2: math.inf}) == 1
    assert _lowest({0: 1.0}) == 0


# errors


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (changed(steps=0), {}, "find_lr: steps must be at least 1, got 0"),
        (CONFIG, {"seeds": 0}, "find_lr: seeds must be at least 1, got 0"),
        (CONFIG, {"sweep_steps": 1}, "find_lr: sweep_steps must be at least 2, got 1"),
    ],
)
def test_values_out_of_range_are_named(config, options, message):
    with pytest.raises(ConfigError, match=message):
        first_sweep(config, DATASET, **options)


def test_a_sweep_that_never_falls_and_trials_that_all_diverge_are_told(monkeypatch):
    curve = first_sweep(CONFIG, DATASET, low=1e30, high=1e38, sweep_steps=20)
    with pytest.raises(ConfigError, match=r"never falls between the learning rates 1e\+30 and"):
        find_lr(CONFIG, DATASET, curve=curve)
    monkeypatch.setattr(found_lr, "_dev_losses", lambda configs, *_: [math.inf] * len(configs))
    with pytest.raises(ConfigError, match="every trial of 100 steps diverged"):
        find_lr(changed(steps=500), DATASET)
