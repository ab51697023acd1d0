"""Populations: every result has the bits of the single training, however configurations mix."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from support.lm.population import BASE, DATASET, MIXED, alone, same_bits

from mlpkern.lm import Population, population
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.many import drawn_batches
from mlpkern.lm.training.engines import RunEngine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.progress import NoProgress
from mlpkern.lm.training.trainer import Trainer

MODULE = importlib.import_module("mlpkern.lm.many.group")

# equals single trainings


def test_every_result_is_the_single_training_bit_for_bit():
    for config, result in zip(MIXED, population(MIXED, DATASET), strict=True):
        model, losses, dev = alone(config)
        assert result.config is config
        assert same_bits(result.model, model)
        assert result.every == 1
        assert torch.equal(result.losses, losses)
        assert result.stopped is None
        assert result.dev.rows == dev.rows
        assert result.dev.loss == pytest.approx(dev.loss, rel=1e-6)
        assert result.dev.accuracy == pytest.approx(dev.accuracy, abs=1e-7)


def test_batches_drawn_by_threads_ahead_change_nothing(monkeypatch):
    expected = population(MIXED, DATASET)
    monkeypatch.setattr(drawn_batches, "draws_ahead", lambda _: True)
    monkeypatch.setattr(drawn_batches, "PIECE", 7)
    monkeypatch.setattr(MODULE, "FIRST_CHUNK", 11)
    for one, other in zip(population(MIXED, DATASET), expected, strict=True):
        assert same_bits(one.model, other.model)
        assert torch.equal(one.losses, other.losses)
        states = (one.state.generator.get_state(), other.state.generator.get_state())
        assert torch.equal(*states)  # nothing is drawn that is not trained
    pieces = Population(MIXED, DATASET)
    for share in (0.3, 0.31, 1.0):
        pieces.advance(share)
    for one, other in zip(pieces.results(), expected, strict=True):
        assert same_bits(one.model, other.model)


def test_grouping_and_order_change_nothing():
    together = population(MIXED, DATASET)
    backwards = population(MIXED[::-1], DATASET)[::-1]
    for i, (a, b) in enumerate(zip(together, backwards, strict=True)):
        (single,) = population([MIXED[i]], DATASET)
        for other in (b, single):
            assert same_bits(a.model, other.model)
            assert torch.equal(a.losses, other.losses)
            assert a.dev == other.dev


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(monkeypatch, threads):
    expected = population(MIXED, DATASET)
    torch.set_num_threads(threads)
    monkeypatch.setattr(MODULE, "FIRST_CHUNK", 11)
    some = Population(MIXED, DATASET)
    some.advance(0.3)
    dev = some.dev(5)
    some.keep(list(range(1, len(MIXED))))
    some.advance(1.0)
    for one, other in zip(some.results(), expected[1:], strict=True):
        assert same_bits(one.model, other.model)
        assert torch.equal(one.losses, other.losses)
        assert one.dev == other.dev
    torch.set_num_threads(1)
    alone = Population(MIXED, DATASET)
    alone.advance(0.3)
    assert alone.dev(5) == dev


@pytest.mark.parametrize("max_points", [2_000, 20])
def test_chunks_change_nothing(monkeypatch, max_points):
    configs = [BASE, replace(BASE, seed=1)]
    whole = population(configs, DATASET, max_points=max_points)
    monkeypatch.setattr(MODULE, "MAX_ROWS", 2 * 8 * 7)  # chunks of 7 steps
    for a, b in zip(whole, population(configs, DATASET, max_points=max_points), strict=True):
        assert same_bits(a.model, b.model)
        assert torch.equal(a.losses, b.losses)


@pytest.mark.parametrize(
    ("threads", "expected"),
    [(1, [5, 2, 1, 1, 1, 2, 1]), (2, [2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1])],
)
def test_as_few_calls_as_there_are_shapes_or_parts_of_them(monkeypatch, threads, expected):
    torch.set_num_threads(threads)
    monkeypatch.setattr(MODULE, "FIRST_CHUNK", 10_000)
    calls = []
    train_steps = MODULE.mlpkern.train_steps

    def counting(params, *arguments, **options):
        calls.append(params.models)
        return train_steps(params, *arguments, **options)

    monkeypatch.setattr(MODULE.mlpkern, "train_steps", counting)
    population(MIXED, DATASET)
    assert sorted(calls) == sorted(expected)
    calls.clear()
    population([replace(BASE, seed=s) for s in range(6)], DATASET)
    assert calls == [6]  # for either number of threads as many models


def test_curves_are_means_over_equal_numbers_of_steps():
    _, losses, _ = alone(BASE)
    (result,) = population([BASE], DATASET, max_points=20)
    assert result.every == 8  # 150 steps in at most 20 points
    expected = torch.stack([part.double().mean() for part in losses.split(8)]).float()
    assert len(expected) == 19
    torch.testing.assert_close(result.losses, expected, rtol=1e-6, atol=0)
    (result,) = population([BASE], DATASET, max_points=1)
    assert result.losses.item() == pytest.approx(losses.double().mean().item(), rel=1e-6)


# edges


def test_no_configurations_and_no_steps():
    assert population([], DATASET) == []
    (result,) = population([replace(BASE, steps=0)], DATASET)
    start = Trainer.start(BASE, DATASET, RunEngine()).state.model
    assert same_bits(result.model, start)
    assert len(result.losses) == 0
    assert result.dev.loss == pytest.approx(evaluate(start, DATASET.splits["dev"]).loss, rel=1e-6)


def test_a_model_that_diverges_stops_and_the_others_go_on():
    bad = replace(BASE, seed=1, lr=((0, 0.1), (60, 1e38)))
    with pytest.warns(RuntimeWarning, match=r"configuration 1 stopped at step 6\d: .* finite"):
        first, stopped, last = population([BASE, bad, replace(BASE, seed=2)], DATASET)
    assert 60 < stopped.stopped < 70
    assert stopped.losses[: stopped.stopped].isfinite().all()
    assert not stopped.losses[stopped.stopped :].isfinite().any()
    for result in (first, last):
        assert result.stopped is None
        assert same_bits(result.model, alone(result.config)[0])


def test_progress_counts_the_steps_of_all_models_and_ctrl_c_ends_it():
    class Counting(NoProgress):
        steps = 0

        def advance(self, steps):
            self.steps += steps
            if self.steps >= limit:
                raise KeyboardInterrupt

    limit = 10**9
    progress = Counting()
    population(MIXED, DATASET, progress=progress)
    assert progress.steps == sum(config.steps for config in MIXED)
    limit = 1
    with pytest.raises(KeyboardInterrupt):
        population(MIXED, DATASET, progress=Counting())


def test_max_points_must_be_positive():
    with pytest.raises(ConfigError, match="max_points must be at least 1, got 0"):
        population([BASE], DATASET, max_points=0)
