"""Populations that keep the best model of each, end with patience, and name what has diverged."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from support.lm.training import same_bits
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.lm.training.evaluation import evaluate

MODULE = importlib.import_module("mlpkern.lm.many.group")
# few words and a rate that learns them by heart: dev is lowest long before the end
DATASET = lm.build_dataset(make_words(80), block_size=3)
BASE = lm.TrainConfig(
    embedding_dim=4, hidden=(32,), batch_size=16, steps=600, lr=((0, 0.3),), eval_every=50
)
CONFIGS = [
    replace(BASE, patience=3),
    replace(BASE, seed=1, patience=2),
    replace(BASE, seed=2, eval_every=40),
    replace(BASE, hidden=(16, 9), patience=4, seed=3),
    replace(BASE, seed=4, patience=3, optimizer="adamw", lr=((0, 0.02),)),
    replace(BASE, seed=5, patience=1, eval_every=70, lr=((0, 1e-4),)),  # it falls to the end
    replace(BASE, seed=6),
]


def alone(config):
    trainer = lm.Trainer.start(config, DATASET, lm.RunEngine())
    trainer.train()
    return trainer


def agree(trained, trainer):
    """That ``trained`` is what ``trainer`` made of the same configuration, to the bit."""
    assert trained.state.step == trainer.state.step
    assert same_bits(trained.model.state_dict(), trainer.state.model.state_dict())
    assert torch.equal(trained.state.generator.get_state(), trainer.state.generator.get_state())
    assert trained.best.step == trainer.best.step
    assert same_bits(trained.best.model.state_dict(), trainer.best_model().state_dict())
    assert trained.best.dev.loss == pytest.approx(trainer.best.dev_loss, rel=1e-6)
    assert trained.dev.loss == pytest.approx(trainer.dev.loss, rel=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_patience_and_the_best_are_those_of_single_trainings(threads):
    torch.set_num_threads(threads)
    some = lm.population(CONFIGS, DATASET, keep_best=True)
    assert [trained.config for trained in some] == CONFIGS
    for trained in some:
        agree(trained, alone(trained.config))
    ended = [trained.state.step < 600 for trained in some]
    assert ended == [True, True, False, True, True, False, False]
    assert all(t.best.step < t.state.step for t in some[:5])
    assert some[5].best.model is some[5].model  # the last is the best: there is no second copy


def test_pieces_and_drops_change_nothing_for_those_that_stay():
    some = lm.Population(CONFIGS, DATASET, keep_best=True)
    some.advance(0.3)
    some.advance(0.5)
    first = alone(CONFIGS[1])
    assert first.state.step < 300  # it is done already, and stays what it ended as
    assert some.dev()[1].loss == pytest.approx(first.dev.loss, rel=1e-6)
    some.keep([1, 2, 4])
    some.advance(1.0)
    assert list(some.dev(5)) == [1, 2, 4]
    for i, trained in zip((1, 2, 4), some.results(), strict=True):
        assert trained.config is CONFIGS[i]
        agree(trained, alone(CONFIGS[i]))
    some.keep([1])
    assert [trained.config for trained in some.results()] == [CONFIGS[1]]


def test_a_group_whose_patience_has_ended_whole_trains_no_more(monkeypatch):
    steps = []
    train_steps = MODULE.mlpkern.train_steps

    def counting(params, inputs, targets, batches, *arguments, **options):
        steps.append(params.models * batches.shape[1])
        return train_steps(params, inputs, targets, batches, *arguments, **options)

    monkeypatch.setattr(MODULE.mlpkern, "train_steps", counting)
    some = lm.population(CONFIGS[:2], DATASET)
    assert sum(steps) == sum(trained.state.step for trained in some) < 1200


def test_without_patience_dev_losses_are_taken_only_at_the_end(monkeypatch):
    calls = []
    measure = MODULE.mlpkern.evaluate
    monkeypatch.setattr(
        MODULE.mlpkern, "evaluate", lambda *arrays: calls.append(1) or measure(*arrays)
    )
    some = lm.population([replace(c, patience=0) for c in CONFIGS[:2]], DATASET)
    assert len(calls) == 1
    for trained in some:
        assert trained.best.model is trained.model
        assert (trained.best.step, trained.best.dev) == (600, trained.dev)


def test_parameters_are_copied_only_when_they_are_the_best(monkeypatch):
    kept = []
    keep = MODULE.KeptBest.keep
    monkeypatch.setattr(
        MODULE.KeptBest, "keep", lambda self, *values: kept.append(self.step) or keep(self, *values)
    )
    (trained,) = lm.population([BASE], DATASET, keep_best=True)
    assert kept == sorted(set(kept))
    assert kept[-1] == trained.best.step
    assert len(kept) < 12


def test_a_result_can_be_trained_on_where_its_patience_ended():
    (trained,) = lm.population([CONFIGS[0]], DATASET)
    state = trained.state
    lm.RunEngine().run_chunk(state, 600 - state.step)
    whole = alone(replace(CONFIGS[0], patience=0))
    assert same_bits(state.model.state_dict(), whole.state.model.state_dict())


# what has diverged


def test_a_model_that_diverges_at_a_finite_loss_is_named():
    short = replace(BASE, steps=100)
    configs = [short, replace(short, lr=((0, 1e9),)), replace(short, init="lecture", steps=0)]
    with pytest.warns(RuntimeWarning, match="population: configuration 1 diverged: the train loss"):
        some = lm.population(configs, DATASET)
    assert [trained.diverged is not None for trained in some] == [False, True, False]
    assert some[1].stopped is None
    assert evaluate(some[1].model, DATASET.splits["train"]).loss > 1e3
