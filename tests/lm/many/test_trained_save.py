"""`Trained.save`: a run folder that every command takes, with the bits of a training alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.lm.training import same_bits

from mlpkern import lm
from mlpkern.cli import main
from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.saved.log import read_log
from mlpkern.lm.saved.records import read_losses
from mlpkern.lm.saved.run_words import load_words

NAMES, DATA = load_words(None, "embedded", 100, lm.TextOptions())
DATASET = lm.build_dataset(NAMES[:60], block_size=3)
BASE = lm.TrainConfig(
    embedding_dim=4, hidden=(32,), batch_size=16, steps=600, lr=((0, 0.3),), eval_every=50
)


def test_all_commands_take_the_folder(tmp_path, capsys):
    dataset = lm.build_dataset(NAMES, block_size=3)
    small = replace(BASE, hidden=(8,), steps=60)
    (trained,) = lm.population([small], dataset, max_points=6)
    run = trained.save(tmp_path / "run")
    assert not run.best.exists()  # the last model is the best
    assert [(row.step, row.train_loss) for row in read_log(run.log)] == [
        (10 * k, pytest.approx(loss, abs=1e-6)) for k, loss in enumerate(trained.losses.tolist(), 1)
    ]
    path = str(run.path)
    assert main(["sample", path, "-n", "3"]) == 0
    capsys.readouterr()
    assert main(["evaluate", path, "--split", "dev"]) == 0
    assert capsys.readouterr().out.startswith(f"dev   loss {trained.dev.loss:.4f}")
    assert main(["report", path]) == 0
    assert main(["compare", path, path]) == 0
    assert main(["train", "--resume", path, "--steps", "80"]) == 0
    (longer,) = lm.population([replace(small, steps=80)], dataset)
    resumed = lm.load_checkpoint(path)
    assert same_bits(resumed.parameters, longer.model.state_dict())


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adamw", "lr": ((0, 0.02),)}])
def test_last_and_best_continue_bit_for_bit(tmp_path, optimizer):
    """Each is a whole checkpoint: moments, generator and step are those of its model."""
    (trained,) = lm.population([replace(BASE, patience=3, **optimizer)], DATASET)
    run = trained.save(tmp_path / "run")
    best, last = (lm.load_checkpoint(run.path, checkpoint=which) for which in ("best", "last"))
    assert (best.step, best.dev_loss) == (trained.best.step, trained.best.dev.loss)
    assert last.step == trained.state.step > best.step
    assert same_bits(best.parameters, trained.best.model.state_dict())
    assert same_bits(last.parameters, trained.model.state_dict())
    assert read_losses(run, last.step)[1] == trained.dev.loss
    goes_on = lm.Trainer.resume(
        best, DATASET, lm.RunEngine(), config=replace(best.config, steps=last.step, patience=0)
    )
    goes_on.train()
    assert same_bits(goes_on.state.model.state_dict(), trained.model.state_dict())
    assert torch.equal(goes_on.state.generator.get_state(), last.generator)
    dev = {row.step: row.dev_loss for row in read_log(run.log) if row.dev_loss is not None}
    assert list(dev) == [best.step, last.step]


def test_a_run_is_replaced_only_if_asked(tmp_path):
    first, second = lm.population([BASE, replace(BASE, seed=1)], DATASET, keep_best=True)
    first.save(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a run"):
        second.save(tmp_path / "run")
    run = second.save(tmp_path / "run", force=True)
    assert same_bits(lm.load_checkpoint(run.path).parameters, second.model.state_dict())
    assert lm.load_checkpoint(run.path, checkpoint="best").step == second.best.step


def test_the_log_of_a_model_that_stopped_ends_before(tmp_path):
    bad = replace(BASE, lr=((0, 0.1), (60, 1e38)))
    with pytest.warns(RuntimeWarning, match="stopped at step"):
        (trained,) = lm.population([bad], DATASET)
    run = trained.save(tmp_path / "run")
    assert read_log(run.log)[-1].step == trained.stopped
