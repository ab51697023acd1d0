"""Frozen parameters in the language model: every engine keeps them, with the same numbers."""

from __future__ import annotations

import pytest
import torch
from support.lm.training import OPTIONS, changed, engine_names, losses_of, trainer

import mlpkern
from mlpkern.lm.many.lr_finder import lr_finder
from mlpkern.lm.training.engines import ENGINES
from mlpkern.lm.training.ops import graphed_steps

SETTINGS = {"plain SGD": {}, "momentum": OPTIONS["momentum"], "everything": OPTIONS["everything"]}
FROZEN = ("embedding.weight", "hidden.0.bias", "output.weight")


def freeze(model, names=FROZEN):
    """Freezes these parameters; returns what all parameters are."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in names)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(model, before):
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("settings", SETTINGS)
def test_engines_keep_them_and_agree(settings):
    config = changed(**SETTINGS[settings])
    free, _ = losses_of("stock", 60, config)
    runs = []
    for name in ENGINES:
        state = trainer(name, config).state
        before = freeze(state.model)
        runs.append(ENGINES[name]().run_chunk(state, 60))
        assert moved(state.model, before) == before.keys() - set(FROZEN), name
        assert all(p.grad is None for p in state.model.parameters())
        for part in (state.optimizer.first, state.optimizer.second):
            if part is not None:
                assert not part.embedding.any(), name
                assert part.output[1].any(), name
    assert not torch.allclose(runs[0], free, rtol=1e-3, atol=1e-3)
    for losses in runs[1:]:
        torch.testing.assert_close(losses[:20], runs[0][:20], rtol=2e-5, atol=5e-6)
        torch.testing.assert_close(losses, runs[0], rtol=5e-3, atol=2e-3)


@engine_names
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_model_that_is_frozen_as_a_whole(name, settings):
    run = trainer(name, changed(**SETTINGS[settings]))
    before = freeze(run.state.model, list(dict(run.state.model.named_parameters())))
    losses = run.engine.run_chunk(run.state, 5)
    assert losses.isfinite().all()
    assert not moved(run.state.model, before)


@engine_names
def test_the_trainer_keeps_them_and_trains_them_once_released(name):
    run = trainer(name, changed(steps=40))
    before = freeze(run.state.model, ["embedding.weight"])
    run.train()
    assert "embedding.weight" not in moved(run.state.model, before)
    run.state.model.embedding.weight.requires_grad_(True)
    run.state.config = changed(steps=60)
    run.train()
    assert moved(run.state.model, before) == before.keys()


def test_the_steps_of_a_graph_obey_what_is_frozen_later():
    state = trainer("ops").state
    before = freeze(state.model)
    graphed_steps(state, state.learning_rates(10))
    assert moved(state.model, before) == before.keys() - set(FROZEN)
    before = freeze(state.model, ["embedding.weight"])
    graphed_steps(state, state.learning_rates(10))
    assert moved(state.model, before) == before.keys() - {"embedding.weight"}


def test_the_learning_rate_finder_keeps_them():
    state = trainer().state
    freeze(state.model)
    copy = mlpkern.MLPParams.from_module(state.model).clone()
    curve = lr_finder(state.model, state.train, steps=20, seeds=[3, 4])
    seeded = [trainer(config=changed(seed=seed, batch_size=32)).state for seed in (3, 4)]
    rows = torch.stack([state.draw_batches(20) for state in seeded])  # (M, S, N)
    params = mlpkern.MLPParams.stack([copy, copy])
    assert params.frozen == ("embedding", "hidden.0.bias", "output.weight")
    data = (state.train.inputs, state.train.targets)
    assert torch.equal(mlpkern.train_steps(params, *data, rows, curve.lrs), curve.losses)
