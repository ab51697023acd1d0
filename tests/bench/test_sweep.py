"""The comparison of sweeps: both sides train the same trials, and one tiny run of the script."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.lm.training import DATASET

from bench.sweep import StockTrainees, main
from mlpkern.lm import Population, TrainConfig

pytestmark = pytest.mark.usefixtures("one_thread")

BASE = TrainConfig(
    embedding_dim=3, hidden=(8,), batch_size=8, steps=60, optimizer="adamw", lr=((0, 0.01),),
    schedule="cosine", weight_decay=0.1,
)  # fmt: skip


def test_stock_trainees_do_what_a_population_does():
    configs = [BASE, replace(BASE, block_size=2), replace(BASE, lr=((0, 0.03),))]
    both = [make(configs, DATASET) for make in (Population, StockTrainees)]
    losses = []
    for models in both:
        models.advance(0.5)
        first = models.dev()
        models.keep([0, 2])
        models.advance(1.0)
        losses.append([m.loss for m in (*first.values(), *models.dev().values())])
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_stock_trainees_drop_cool_down_and_go_on():
    dropping = StockTrainees([replace(BASE, hidden_dropout=0.5)], DATASET)
    dropping.advance(0.5)
    now = dropping.dev()
    assert dropping.dev(5)[0].loss != now[0].loss
    assert dropping.dev() == now
    assert dropping.states[0].step == 30


def test_the_script_prints_trials_a_minute(capsys):
    pytest.importorskip("optuna")
    arguments = ["--trials", "3", "--steps", "40", "--repeat", "1", "--threads", "1"]
    assert main(arguments) == 0
    first, ours, stock, last = capsys.readouterr().out.splitlines()
    assert first.startswith("3 trials of 40 steps, N=256; (T, D, H): (")
    paces = []
    for line, name in ((ours, "population, 1 thread"), (stock, "stock, 1 thread")):
        assert line.startswith(name)
        seconds, pace = re.search(r"([\d.]+) s a batch .* ([\d.]+) trials a minute", line).groups()
        # both are rounded, and on a fast machine the seconds are few
        assert 180 / float(pace) == pytest.approx(float(seconds), rel=0.001, abs=0.0006)
        paces.append(float(pace))
    ratio = float(re.search(r"trains ([\d.]+) times as many as the faster stock", last)[1])
    assert ratio == pytest.approx(paces[0] / paces[1], rel=0.002, abs=0.006)
