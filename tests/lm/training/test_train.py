"""Training: engines against the lecture's loop and each other, chunks, seeds, settings."""

from __future__ import annotations

import pytest
import torch
from support.lm.training import DATASET, engine_names, losses_of, same_bits, trainer
from torch.nn import functional as F

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import PRESETS, TrainConfig, seed_for
from mlpkern.lm.training import ops
from mlpkern.lm.training.engines import ENGINES, choose_engine
from mlpkern.lm.training.evaluation import evaluate

# equals the lecture


@pytest.mark.parametrize("hidden", [(24,), (16, 9)])
def test_stock_engine_is_the_loop_of_the_lecture_bit_for_bit(hidden):
    config = TrainConfig(
        embedding_dim=4, hidden=hidden, batch_size=8, steps=50, lr=((0, 0.1), (30, 0.01))
    )
    losses, state = losses_of("stock", 50, config)

    start = trainer("stock", config).state  # the same parameters, trained by hand
    parameters = [p.detach().clone().requires_grad_() for p in start.model.parameters()]
    embedding, *layers, w_out, b_out = parameters
    x_all, y_all = start.train.inputs.long(), start.train.targets.long()
    g = torch.Generator().manual_seed(seed_for(config.seed, "batches"))
    expected = []
    for step in range(50):
        ix = torch.randint(0, x_all.shape[0], (8,), generator=g)
        h = F.embedding(x_all[ix], embedding).view(8, -1)
        for w, b in zip(layers[::2], layers[1::2], strict=True):
            h = torch.tanh(F.linear(h, w, b))
        loss = F.cross_entropy(F.linear(h, w_out, b_out), y_all[ix])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -(0.1 if step < 30 else 0.01) * p.grad
        expected.append(loss.item())
    assert losses.tolist() == expected
    for ours, theirs in zip(state.model.parameters(), parameters, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("init", ["lecture", "scaled"])
@pytest.mark.parametrize("hidden", [(24,), (16, 9)])
def test_engines_agree_to_rounding_over_the_first_steps(init, hidden):
    config = TrainConfig(embedding_dim=4, hidden=hidden, batch_size=8, init=init, lr=((0, 0.1),))
    stock, _ = losses_of("stock", 300, config)
    for name in ("ops", "run"):
        ours, _ = losses_of(name, 300, config)
        # rounding grows along a trajectory: 1e-6 at once, still small after hundreds of steps
        torch.testing.assert_close(ours[:20], stock[:20], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours, stock, rtol=5e-3, atol=1e-3)


def test_one_draw_of_many_steps_equals_many_draws_of_one():
    one, many = trainer().state, trainer().state
    together = one.draw_batches(100)
    apart = torch.cat([many.draw_batches(1) for _ in range(100)])
    assert torch.equal(together, apart)
    assert torch.equal(one.generator.get_state(), many.generator.get_state())
    assert together.min() >= 0
    assert together.max() < len(one.train)


@engine_names
def test_chunks_do_not_change_a_bit(name, monkeypatch):
    whole, end = losses_of(name, 200)
    monkeypatch.setattr(ops, "MAX_GATHERED_IDS", 8 * 3 * 7)  # pieces of 7 steps in a chunk
    cut, end_cut = losses_of(name, 200, cuts=(1, 2, 77, 130))
    assert torch.equal(whole, cut)
    assert same_bits(end.model.state_dict(), end_cut.model.state_dict())
    assert torch.equal(end.generator.get_state(), end_cut.generator.get_state())


@engine_names
def test_training_lowers_the_loss_and_leaves_no_gradients(name):
    run = trainer(name)
    before = evaluate(run.state.model, DATASET.splits["dev"]).loss
    run.train()
    assert evaluate(run.state.model, DATASET.splits["dev"]).loss < before - 0.3
    assert all(p.grad is None for p in run.state.model.parameters())


# seeds and settings


def test_seeds_of_purposes_differ_and_are_stable():
    assert seed_for(0, "init") != seed_for(0, "batches") != seed_for(1, "batches")
    assert seed_for(0, "init") == 7603399658046324659


def test_preset_lecture():
    p = PRESETS["lecture"]
    assert (p.block_size, p.embedding_dim, p.hidden, p.batch_size) == (3, 10, (200,), 32)
    assert (p.steps, p.lr, p.split_seed) == (200_000, ((0, 0.1), (0.5, 0.01)), 42)


def test_preset_best_is_one_plain_layer_and_every_preset_has_a_flag():
    p = PRESETS["best"]
    assert p.block_size <= 10
    assert len(p.hidden) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"hidden": ()}, "hidden must be one width or more"),
        ({"hidden": (3, 0)}, "hidden must be one width or more"),
        ({"init": "x"}, "init must be one of lecture, scaled, got 'x'"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, got 'adam'"),
        ({"optimizer": "adamw", "momentum": 0.9}, "momentum is for optimizer sgd, got 0.9"),
        ({"momentum": -1}, "momentum must be finite and at least 0, got -1"),
        ({"weight_decay": float("nan")}, "weight_decay must be finite and at least 0, got nan"),
        ({"input_dropout": 1.0}, "input_dropout must be at least 0 and below 1, got 1.0"),
        ({"hidden_dropout": -0.1}, "hidden_dropout must be at least 0 and below 1, got -0.1"),
        ({"max_grad_norm": 0}, "max_grad_norm must be above 0 and finite, got 0"),
        ({"label_smoothing": 1.5}, "label_smoothing must be 0 to 1, got 1.5"),
        ({"schedule": "linear"}, "schedule must be one of staged, cosine, got 'linear'"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"lr": ()}, "lr must start at step 0"),
        ({"lr": ((5, 0.1),)}, "lr must start at step 0"),
        ({"lr": ((0, 0.1), (9, 0.2), (3, 0.1))}, "lr must have rising steps"),
        ({"lr": ((0, float("nan")),)}, "lr from step 0 must be finite"),
        ({"lr": ((0, 0.1), (5, -1.0))}, "lr from step 5 must be finite and at least 0"),
        (
            {"warmup": 1.5},
            "warmup must be at a whole step, or at a share .* below 1, got 1.5",
        ),
        ({"lr": ((0, 0.1), (1.0, 0.2))}, "lr must be at a whole step, or at a share of the run"),
        ({"lr": ((0, 0.1), (0.75, 0.2), (0.5, 0.1))}, "lr must have rising steps"),
        ({"lr": ((0, 0.1), (0.5, -1.0))}, "lr from 50% must be finite and at least 0"),
        ({"lr": "0.1"}, r"lr must be a rate, or \(step or share of the run, rate\) pairs as in"),
        (
            {"lr": ((0, 0.1), (600, 0.2), (0.5, 0.1)), "steps": 1_000},
            r"lr must have rising steps, got \['0', '600', '50%'\] of 1000 steps",
        ),
        ({"lr": ((0, 1e39),)}, "lr from step 0 must be finite and at least 0, in float32, got 1e"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


# engines by name


def test_auto_takes_the_first_engine_that_applies(monkeypatch):
    cpu = torch.device("cpu")
    for name in ("run", "ops"):
        monkeypatch.setattr(ENGINES[name], "unavailable", staticmethod(lambda _: None))
    engine, why = choose_engine("auto", cpu)
    assert (engine.name, why) == ("run", "the fastest that applies on cpu")
    monkeypatch.setattr(ENGINES["run"], "unavailable", staticmethod(lambda _: "no kernel"))
    engine, why = choose_engine("auto", cpu)
    assert (engine.name, why) == ("ops", "the fastest that applies on cpu; not run: no kernel")
    monkeypatch.setattr(ENGINES["ops"], "unavailable", staticmethod(lambda _: "no compiler"))
    engine, why = choose_engine("auto", cpu)
    assert engine.name == "stock"
    assert "not run: no kernel; not ops: no compiler" in why
    engine, why = choose_engine("ops", cpu)
    assert engine.name == "ops"
    assert "slow: no compiler" in why
    with pytest.raises(ConfigError, match="engine must be auto, run, ops, stock, got 'x'"):
        choose_engine("x", cpu)
