"""Overfitting one batch: its floor, that it is reached, what the command prints."""

from __future__ import annotations

import math
import re

import pytest
import torch
from support.lm.training import CONFIG, DATASET, engine_names, trainer

from mlpkern.cli import main
from mlpkern.lm.errors import NonFiniteLossError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.training.engines import ENGINES
from mlpkern.lm.training.overfit import lowest_loss, overfit_batch
from mlpkern.lm.words.data import Split


def changed(**settings):
    return TrainConfig(**{**CONFIG.to_json(), **settings})


FAST = changed(steps=400, batch_size=32, hidden=(40,), optimizer="adamw", lr=((0, 0.02),))


def test_the_floor_by_hand():
    # (0, 0) three times with two targets, (0, 1) once
    split = Split(torch.tensor([[0, 0], [0, 1], [0, 0], [0, 0]]), torch.tensor([1, 2, 1, 0]))
    expected = -(2 * math.log(2 / 3) + math.log(1 / 3)) / 4
    assert lowest_loss(split) == pytest.approx(expected, rel=1e-12)
    assert lowest_loss(Split(split.inputs[1:2], split.targets[1:2])) == 0


@engine_names
def test_the_batch_is_the_first_of_a_training_and_its_floor_is_reached(name):
    reports = []
    result = overfit_batch(FAST, DATASET, ENGINES[name](), report=lambda *r: reports.append(r))
    rows = trainer("stock", FAST).state.draw_batches(1)[0]
    assert torch.equal(result.batch.inputs, DATASET.splits["train"].inputs[rows])
    assert torch.equal(result.batch.targets, DATASET.splits["train"].targets[rows])
    assert result.floor == lowest_loss(result.batch) > 0.1
    assert 0 < result.ambiguous < result.contexts < 32
    assert result.floor < result.loss < result.floor + 0.01
    assert len(result.losses) == 400
    assert [step for step, _ in reports] == list(range(40, 401, 40))
    assert reports[-1][1] == result.losses[-1].item()


def test_a_loss_that_is_not_finite_is_an_error():
    config = changed(lr=((0, 1e38),), steps=30)
    with pytest.raises(NonFiniteLossError, match=r"step \d: the loss is .* smaller learning rate"):
        overfit_batch(config, DATASET, ENGINES["run"]())


def test_the_command_prints_loss_and_floor_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--overfit-batch", "--threads", "1"]) == 0
    *_, batch, floor, loss = capsys.readouterr().out.splitlines()
    assert re.match(r"batch   the same 32 rows in every step: \d+ different contexts$", batch)
    low = float(
        re.match(r"floor   (0\.\d{4}), not 0: \d of the contexts occur with diff", floor)[1]
    )
    reached, above = map(float, re.match(r"loss    (\S+), (\S+) above the floor$", loss).groups())
    assert reached - low == pytest.approx(above, abs=2e-4)
    assert above < 0.05
    assert list(tmp_path.iterdir()) == []
    assert main(["train", "--overfit-batch", "--out", "r"]) == 2
    assert "--out does not go with --overfit-batch, which writes" in capsys.readouterr().err
