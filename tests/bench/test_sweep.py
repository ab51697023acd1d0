"""The comparisons of searches: of a sweep with plain torch, of find-lr with a grid of rates."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from support.lm.training import DATASET

from bench import lr_grid
from bench.sweep import StockTrainees, main
from mlpkern.lm import PRESETS, Population, TrainConfig

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


def test_the_grid_of_rates_ends_with_the_gap_of_the_recommended_one(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, "quick", TrainConfig(hidden=(32,), steps=1_000))
    monkeypatch.setitem(lr_grid.WORD, "steps", 100)
    text = tmp_path / "text.txt"
    text.write_text("the cat saw the dog\nthe dog saw a cat\n" * 300)
    assert lr_grid.main(["--cases", "quick", "word", "--text", str(text), "--seeds", "2"]) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("quick: valley ")
    assert lines[9].startswith("word: valley ")
    grid = [float(re.search(r"dev (\d+\.\d{4})", line)[1]) for line in lines[1:9]]
    gap = float(re.search(r"recommended: ([+-]\S+) from the best; 2 seeds", lines[8])[1])
    assert gap == pytest.approx(grid[7] - min(grid[:7]), abs=2e-4)
    assert gap < lr_grid.BOUND
