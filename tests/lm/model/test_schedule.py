"""The learning rate of each step: stages, warm-up, cosine."""

from __future__ import annotations

import pytest
import torch
from support.lm.training import CONFIG, trainer

from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.schedule import stage_rates


def changed(**settings):
    return TrainConfig(**{**CONFIG.to_json(), **settings})


def test_stages():
    stages = ((0, 0.1), (100, 0.01), (200, 0.001))
    rates = [stage_rates(stages, s, 1).item() for s in (0, 99, 100, 199, 200, 10**9)]
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    state = trainer().state
    state.step = 398
    assert state.learning_rates(4).tolist() == [0.1, 0.1, 0.02, 0.02]


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
