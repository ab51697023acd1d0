"""The learning rate of each step: stages, warm-up, cosine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.lm.training import CONFIG, finished, trainer

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import PRESETS, TrainConfig
from mlpkern.lm.model.schedule import stage_rates
from mlpkern.lm.saved.log import read_log


def changed(**settings):
    return TrainConfig(**{**CONFIG.to_json(), **settings})


def test_stages():
    stages = ((0, 0.1), (100, 0.01), (200, 0.001))
    rates = [stage_rates(stages, 300, s, 1).item() for s in (0, 99, 100, 199, 200, 10**9)]
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    state = trainer().state
    state.step = 398
    assert state.learning_rates(4).tolist() == [0.1, 0.1, 0.02, 0.02]


def test_shares_of_the_run_move_with_its_length():
    for steps in (40, 20_000):
        config = TrainConfig(steps=steps, lr=((0, 0.1), (0.5, 0.02), (0.75, 0.01)), warmup=0.25)
        at = [round(share * steps) for share in (0.25, 0.5, 0.75)]
        same = TrainConfig(steps=steps, lr=((0, 0.1), (at[1], 0.02), (at[2], 0.01)), warmup=at[0])
        assert config.learning_rates(0, steps).equal(same.learning_rates(0, steps))
    assert TrainConfig(steps=1).learning_rates(0, 1).tolist() == [0.1]
    assert PRESETS["lecture"].learning_rates(99_999, 2).tolist() == [0.1, 0.01]
    assert PRESETS["quick"].with_settings(steps=15_000).learning_rates(11_249, 2).tolist() == [
        0.1, 0.01,
    ]  # fmt: skip


def test_a_rate_alone_keeps_the_shape_of_the_schedule():
    config = TrainConfig()
    assert config.with_settings(lr=0.1) == config
    assert config.with_settings(lr=np.float32(0.5)).lr == ((0, 0.5), (0.75, 0.05))
    assert config.with_settings(lr=((0, 0.1),)).lr == ((0, 0.1),)
    assert config.with_settings(lr=1 / 3).lr[0] == (0, 1 / 3)  # every digit, as a search draws it
    for lr in (None, math.nan, -1.0):
        with pytest.raises(ConfigError, match="lr "):
            config.with_settings(lr=lr)
    assert config.with_settings(schedule="cosine", lr=0.3).lr == ((0, 0.3),)
    assert config.with_settings(lr=((0, 0.0), (5, 0.1))).with_settings(lr=0.2).lr == ((0, 0.2),)
    assert TrainConfig(lr=0.3).lr == TrainConfig(lr=torch.tensor(0.3, dtype=torch.float64)).lr
    assert TrainConfig(lr=0.3, hidden=200).to_json() == TrainConfig(lr=((0, 0.3),)).to_json()


def test_intervals_follow_the_length_of_the_run(tmp_path):
    for steps, log, every in ((20_000, 200, 2_000), (200_000, 2_000, 20_000), (7, 1, 1), (0, 1, 1)):
        config = TrainConfig(steps=steps)
        assert (config.log_interval, config.eval_interval) == (log, every)
        assert config.checkpoint_interval == every
    config = TrainConfig(log_every=3, eval_every=0, checkpoint_every=5)
    assert (config.log_interval, config.eval_interval, config.checkpoint_interval) == (3, 0, 5)
    finished(tmp_path, "run", TrainConfig(steps=1_000, embedding_dim=2, hidden=4))
    rows = read_log(tmp_path / "log.csv")
    assert [row.step for row in rows] == [*range(10, 1_001, 10)]
    assert sum(row.dev_loss is not None for row in rows) == 10


@pytest.mark.parametrize("warmup", [0, 25])
def test_cosine_is_that_of_torch(warmup):
    config = changed(steps=120, lr=((0, 0.3),), schedule="cosine", warmup=warmup)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=120 - warmup)
    expected = [0.3 * (s + 1) / warmup for s in range(warmup)]
    for _ in range(120 - warmup):
        expected.append(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    # torch computes each rate from the one before
    assert config.learning_rates(0, 120).tolist() == pytest.approx(expected, rel=1e-9)


def test_warm_up_of_stages():
    config = changed(lr=((0, 0.1), (3, 0.5)), warmup=4)
    expected = [0.1 / 4, 0.2 / 4, 0.3 / 4, 0.5, 0.5]
    assert config.learning_rates(0, 5).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("options", [{}, {"schedule": "cosine"}, {"warmup": 7}])
def test_rates_of_many_steps_have_the_bits_of_each(options):
    config = changed(steps=20, lr=((0, 0.1), (3, 0.05), (4, 0.01), (9, 0.2)), **options)
    each = [config.learning_rates(s, 1).item() for s in range(30)]
    for first in (0, 2, 3, 4, 8, 9, 20):
        assert config.learning_rates(first, 7).tolist() == each[first : first + 7]


def test_a_cosine_that_is_all_warm_up_and_one_that_is_over():
    config = changed(steps=5, lr=((0, 0.1),), schedule="cosine", warmup=9)
    assert config.learning_rates(0, 5).tolist() == pytest.approx([0.1 * s / 9 for s in range(1, 6)])
    config = changed(steps=5, lr=((0, 0.1),), schedule="cosine")
    assert config.learning_rates(5, 3).tolist() == pytest.approx([0, 0, 0], abs=1e-17)
