"""Populations in pieces: models that are dropped or cooled down change nothing for the others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.lm.population import ADAMW, BASE, DATASET, MIXED, alone, same_bits

import mlpkern
from mlpkern.lm import Population
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import seed_for
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.trainer import Trainer


def test_pieces_and_drops_change_nothing_for_those_that_stay():
    some = Population(MIXED, DATASET)
    some.advance(0.2)
    assert set(some.dev()) == set(range(len(MIXED)))
    some.keep([0, 2, 4, 7, 9, 10, 12])
    some.advance(0.2)  # nothing happens
    some.advance(0.53)
    some.keep([10, 7, 2])
    some.advance(1.0)
    kept = [2, 7, 10]
    dev = some.dev()
    assert list(dev) == kept
    for i, result in zip(kept, some.results(), strict=True):
        model, losses, _ = alone(MIXED[i])
        assert result.config is MIXED[i]
        assert same_bits(result.model, model)
        assert torch.equal(result.losses, losses)
        assert result.dev == dev[i]


def test_a_part_of_the_steps_is_the_first_part_of_the_run():
    some = Population([BASE, ADAMW], DATASET, max_points=20)
    some.advance(0.3)
    for result in some.results():
        trainer = Trainer.start(result.config, DATASET, RunEngine())
        losses = trainer.engine.run_chunk(trainer.state, 45)
        assert result.state.step == 45
        assert same_bits(result.model, trainer.state.model)
        assert len(result.losses) == 45 // 8
        expected = torch.stack([part.double().mean() for part in losses[:40].split(8)])
        torch.testing.assert_close(result.losses, expected.float(), rtol=1e-6, atol=0)


def test_a_result_can_be_trained_on():
    """Its state is that of the run alone: parameters, batches and momenta."""
    some = Population([replace(ADAMW, seed=s, hidden_dropout=0.2) for s in range(3)], DATASET)
    some.advance(0.4)
    state = some.results()[1].state
    RunEngine().run_chunk(state, 90)
    assert same_bits(state.model, alone(state.config)[0])


def test_a_cool_down_lowers_the_loss_and_the_runs_take_no_notice():
    noisy = replace(BASE, lr=((0, 1.0),), steps=400)
    configs = [noisy, replace(noisy, seed=1), replace(ADAMW, seed=2, hidden_dropout=0.3)]
    some = Population(configs, DATASET)
    some.advance(0.5)
    now, cooled = some.dev(), some.dev(60)
    assert some.dev() == now
    assert some.dev(60) == cooled
    for i in (0, 1):
        assert cooled[i].loss < now[i].loss - 0.05
    some.advance(1.0)
    for config, result in zip(configs, some.results(), strict=True):
        assert same_bits(result.model, alone(config)[0])
    with pytest.raises(ConfigError, match="cooldown must be at least 0, got -1"):
        some.dev(-1)


def test_a_cool_down_is_steps_at_falling_rates():
    """One model by hand: the rates are 3/4, 2/4 and 1/4 of the present one."""
    some = Population([ADAMW], DATASET)
    some.advance(0.4)
    trainer = Trainer.start(ADAMW, DATASET, RunEngine())
    trainer.engine.run_chunk(trainer.state, 60)
    generator = torch.Generator().manual_seed(seed_for(ADAMW.seed, "cooldown 60"))
    train = DATASET.splits["train"]
    rows = torch.randint(len(train), (3, ADAMW.batch_size), generator=generator)
    rates = ADAMW.learning_rates(60, 1) * torch.tensor([0.75, 0.5, 0.25], dtype=torch.float64)
    state = trainer.state
    mlpkern.train_steps(
        mlpkern.MLPParams.from_module(state.model), train.inputs, train.targets, rows, rates,
        optimizer="adamw", state=state.optimizer,
    )  # fmt: skip
    expected = evaluate(state.model, DATASET.splits["dev"])
    assert some.dev(3)[0].loss == pytest.approx(expected.loss, rel=1e-7)


def test_dropping_one_that_is_gone_is_an_error():
    some = Population([BASE, replace(BASE, seed=1)], DATASET)
    some.keep([1])
    with pytest.raises(ConfigError, match=r"cannot keep \[0, 5\], which are not in training"):
        some.keep([0, 1, 5])
    with pytest.raises(ConfigError, match=r"share must be 0 to 1, got 1\.5"):
        some.advance(1.5)
