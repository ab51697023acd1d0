"""Runs that diverge at a finite loss: which count as such, and who says so."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from support.lm.training import CONFIG, DATASET, trainer
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.training.divergence import divergence
from mlpkern.lm.training.evaluation import evaluate

SHORT = replace(CONFIG, steps=200, eval_every=0, checkpoint_every=0)
# a vocabulary so large that ln V exceeds anything a model of characters begins with
LARGE = lm.build_dataset(
    [f"{a}{b}" for a, b in zip(make_words(4000), make_words(4000, seed=1), strict=True)],
    block_size=2, text=lm.TextOptions(level="word", min_count=1),
)  # fmt: skip


def ended(config, dataset=DATASET):
    run = trainer("run", config, dataset)
    run.train()  # a warning is an error here
    return run


# which runs


@pytest.mark.parametrize("init", ["scaled", "lecture"])
@pytest.mark.parametrize("lr", [30.0, 1e3, 1e9])
@pytest.mark.parametrize("steps", [20, 200])
def test_a_run_at_an_absurd_rate_has_diverged(init, lr, steps):
    run = trainer("run", replace(SHORT, init=init, lr=((0, lr),), steps=steps))
    with pytest.warns(RuntimeWarning, match="train: diverged: the train loss .* worse than"):
        run.train()
    assert run.diverged is not None
    train = evaluate(run.state.model, DATASET.splits["train"]).loss
    guess = math.log(len(DATASET.vocab))
    assert math.isfinite(train)
    assert f"the train loss {train:.4g} is worse than that of a uniform guess, {guess:.4g}" in (
        run.diverged
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"steps": 0, "init": "lecture"},  # far above a uniform guess, but it began there
        {"steps": 5, "init": "lecture", "lr": ((0, 0.01),)},
        {"steps": 0, "hidden": (16, 9, 5), "init": "lecture"},
        {"steps": 1, "batch_size": 1, "lr": ((0, 0.5),)},  # one row pulls the model its way
        {"steps": 3, "batch_size": 1, "lr": ((0, 0.3),)},
        {"steps": 30, "batch_size": 2, "lr": ((0, 0.1),)},
        {"label_smoothing": 1.0},
        {"input_dropout": 0.9, "hidden_dropout": 0.9},
        {"optimizer": "adamw", "lr": ((0, 0.01),)},
        {"weight_decay": 1.0},
    ],
)
def test_honest_runs_have_not_diverged_however_short(settings):
    for seed in range(4):
        assert ended(replace(SHORT, **{**settings, "seed": seed})).diverged is None


@pytest.mark.parametrize("steps", [0, 1, 100])
@pytest.mark.parametrize("init", ["scaled", "lecture"])
def test_a_large_vocabulary_is_judged_by_its_own_guess(steps, init):
    assert len(LARGE.vocab) > 2000
    assert ended(replace(SHORT, steps=steps, block_size=2, init=init), LARGE).diverged is None


def test_an_overfit_model_has_not_diverged():
    """Its dev loss is worse than a uniform guess by far, its train loss is not."""
    few = lm.build_dataset(make_words(40), block_size=3)
    run = trainer("run", replace(SHORT, hidden=(64,), steps=4000, lr=((0, 0.3),)), few)
    run.train()
    assert run.dev.loss > math.log(len(few.vocab)) + 2
    assert run.diverged is None


def test_a_good_run_is_not_evaluated_for_it(monkeypatch):
    run = ended(SHORT)
    monkeypatch.setattr("mlpkern.lm.training.divergence.evaluate", None)
    assert divergence(run.state, run.dev.loss) is None


# who says so


def test_the_command_saves_says_so_and_exits_with_1(words, tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--hidden", "16", "--embedding-dim", "3", "--lr", "1e9", "--eval-every", "100"]
    assert main(["train", words, *flags, "--steps", "200", "--out", str(out)]) == 1
    printed, error = capsys.readouterr()
    lines = printed.splitlines()
    assert f"saved in {out}" in lines
    assert error.startswith("mlpkern train: error: diverged: the train loss ")
    assert error.count("\n") == 1
    assert load_checkpoint(out).step == 200
    summary = json.loads((out / "summary.json").read_text())
    assert summary["diverged"] is True
    # so it does where it goes on, and once more where nothing is left to do
    for steps in ("300", "300"):
        assert main(["train", "--resume", str(out), "--steps", steps]) == 1
        assert "error: diverged" in capsys.readouterr().err
    # a rate that brings it back is no divergence; here it cannot
    other = tmp_path / "other"
    assert main(["train", words, *flags[:-4], "--steps", "200", "--out", str(other)]) == 0
    assert json.loads((other / "summary.json").read_text())["diverged"] is False


def test_overfitting_one_batch_says_so_too(words, capsys):
    sizes = ["--hidden", "16", "--embedding-dim", "3", "--threads", "1"]
    overfit = ["train", words, "--overfit-batch", *sizes, "--steps", "100", "--lr"]
    assert main([*overfit, "1e9"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("mlpkern train: error: diverged: the train loss ")
    assert error.count("\n") == 1
    assert main([*overfit, "0.1"]) == 0
    assert capsys.readouterr().err == ""


def test_the_finder_counts_seeds_that_end_at_an_absurd_loss(words, capsys):
    train = DATASET.splits["train"]
    models = [lm.MLPLanguageModel(len(DATASET.vocab), 3, 4, 16, seed=s) for s in range(3)]
    for high, count in ((0.3, 0), (1e9, 3)):
        curve = lm.lr_finder(models, train, high=high, steps=200, seeds=range(3))
        assert curve.losses.isfinite().all()
        assert curve.diverged == count
        sizes = ["--hidden", "16", "--embedding-dim", "4", "--steps", "200", "--seeds", "3",
                 "--sweep-steps", "200"]  # fmt: skip
        assert main(["find-lr", words, *sizes, "--high", str(high)]) == 0
        assert f"; diverged by then: {count}\n" in capsys.readouterr().out
