"""Evaluation in pieces, of a sample of the rows, and what is shown meanwhile."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch
from support.command_line import FAST, train
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.training import evaluation
from mlpkern.lm.training.evaluation import evaluate, row_losses, sampled

DATASET = lm.build_dataset(make_words(), block_size=3)
TRAIN = DATASET.splits["train"]
V = len(DATASET.vocab)


@pytest.fixture
def small_calls(monkeypatch):
    """Calls of 100 rows: the evaluation of a few words is a long one."""
    monkeypatch.setattr(evaluation, "CALL_LOGITS", 100 * V)


@pytest.fixture
def small_samples(monkeypatch):
    monkeypatch.setattr(evaluation, "SAMPLE_ROWS", 200)
    monkeypatch.setattr(evaluation, "SAMPLE_LOGITS", 0)


@pytest.mark.parametrize("kernels", ["fused", "stock"])
def test_pieces_have_the_metrics_of_the_whole(small_calls, kernels):
    model = lm.MLPLanguageModel(V, 3, 4, 16, kernels=kernels)
    found = evaluate(model, TRAIN)
    losses = row_losses(model, TRAIN)
    assert found.loss == pytest.approx(losses.mean().item(), rel=1e-6)
    right = (model(TRAIN.inputs).argmax(1) == TRAIN.targets).double().mean().item()
    assert found.accuracy == pytest.approx(right, rel=1e-6)
    assert found.rows == len(TRAIN) > 500
    for size in (7, 10**6):
        assert evaluate(model, TRAIN, batch_size=size).loss == pytest.approx(found.loss, rel=1e-6)


def test_a_sample_is_of_distinct_rows_in_order_and_always_the_same(small_samples):
    numbered = lm.Split(torch.arange(1000).view(-1, 1), torch.arange(1000))
    found = sampled(numbered, V)
    assert len(found) == 200
    assert (found.targets.diff() > 0).all()
    assert found.inputs[:, 0].tolist() == found.targets.tolist()
    assert 400 < found.targets.double().mean() < 600
    assert sampled(numbered, V).targets.tolist() == found.targets.tolist()
    few = lm.Split(numbered.inputs[:200], numbered.targets[:200])
    assert sampled(few, V) is few


def test_a_small_vocabulary_has_a_larger_sample():
    rows = torch.zeros(200_000, 1, dtype=torch.uint8)
    split = lm.Split(rows, rows[:, 0])
    assert sampled(split, 27) is split
    assert len(sampled(split, 8_000)) == 125_000
    assert len(sampled(split, 50_000)) == 100_000


def test_a_long_evaluation_shows_a_bar_on_a_terminal_and_a_line_elsewhere(
    small_calls, monkeypatch, capsys
):
    model = lm.MLPLanguageModel(V, 3, 4, 16)
    evaluate(model, TRAIN, shown_as="train")
    assert capsys.readouterr().err == f"evaluating train: {len(TRAIN)} rows\n"
    evaluate(model, TRAIN)
    few = lm.Split(TRAIN.inputs[:100], TRAIN.targets[:100])
    evaluate(model, few, shown_as="dev")
    assert capsys.readouterr() == ("", "")
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        evaluate(model, TRAIN, shown_as="train")
        shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "evaluating train:   0%" in shown
    assert f"/{len(TRAIN)} [" in shown
    assert shown.endswith("\r")  # the bar is gone


def test_commands_show_their_long_evaluations(small_calls, words, tmp_path, capsys):
    assert train(words, *FAST, "--steps", 5, "--out", tmp_path / "run") == 0
    shown = [line for line in capsys.readouterr().err.splitlines() if "evaluating" in line]
    assert len(shown) == 1
    assert shown[0].startswith("evaluating train: ")
    for command in ("evaluate", "report"):
        assert main([command, str(tmp_path / "run"), "--checkpoint", "last"]) == 0
        errors = capsys.readouterr().err
        for name in ("train", "dev", "test"):
            assert f"evaluating {name}: " in errors


def test_the_end_of_a_training_says_which_rows_its_train_loss_has(
    small_samples, words, tmp_path, capsys
):
    found = {}
    for rows in ("none", "sample", "all"):
        out = tmp_path / rows
        assert train(words, *FAST, "--steps", 50, "--train-eval", rows, "--out", out) == 0
        found[rows] = capsys.readouterr().out.splitlines()[-2]
        summary = json.loads((out / "summary.json").read_text())["train"]
        if rows == "none":
            assert summary is None
            assert found[rows] == "train loss -"
            continue
        count = 200 if rows == "sample" else summary["of"]
        assert (summary["rows"], summary["of"] > 500) == (count, True)
        part = f" (200 of {summary['of']} rows)" if rows == "sample" else ""
        assert found[rows] == f"train loss {summary['loss']:.4f}{part}"
    assert float(found["sample"].split()[2]) == pytest.approx(
        float(found["all"].split()[2]), abs=0.5
    )
    # a run without a train loss has ended all the same
    assert main(["compare", str(tmp_path / "none"), str(tmp_path / "all")]) == 0
    assert "*" not in capsys.readouterr().out
