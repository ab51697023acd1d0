"""The best model of a run: which it is, that it is kept, that it is found again, patience."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.lm.training import log_without_seconds, same_bits
from support.lm.words import make_words

from mlpkern import lm
from mlpkern.lm.errors import CheckpointError, ConfigError, NonFiniteLossError, WriteError
from mlpkern.lm.saved import run_writer
from mlpkern.lm.saved.best import Best
from mlpkern.lm.saved.checkpoint import load_checkpoint, load_model, read_best, save_checkpoint
from mlpkern.lm.saved.log import read_log
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.evaluation import evaluate

# few words and a rate that learns them by heart: dev is lowest long before the end
DATASET = lm.build_dataset(make_words(80), block_size=3)
CONFIG = lm.TrainConfig(
    embedding_dim=4, hidden=(32,), batch_size=16, steps=1_000, lr=((0, 0.3),), log_every=50,
    eval_every=50, checkpoint_every=250,
)  # fmt: skip


def start(path=None, config=CONFIG):
    run = RunFolder(path) if path else None
    return lm.Trainer.start(config, DATASET, lm.RunEngine(), run=run)


def trained(path=None, config=CONFIG):
    trainer = start(path, config)
    trainer.train()
    return trainer


def dev_loss(model):
    return evaluate(model, DATASET.splits["dev"]).loss


def lowest(path):
    """(dev loss, step) of the lowest row of a log."""
    rows = read_log(path / "log.csv")
    return min((row.dev_loss, row.step) for row in rows if row.dev_loss is not None)


# which it is


def test_the_lowest_of_all_dev_losses_the_first_of_equals():
    best = Best()
    losses = [2.5, float("nan"), 2.3, 2.3, 2.4, float("inf"), 2.2]
    assert [best.take(step, loss) for step, loss in enumerate(losses)] == [
        True, False, True, False, False, False, True,
    ]  # fmt: skip
    assert (best.step, best.dev_loss) == (6, 2.2)


def test_waiting_counts_from_the_best_and_not_on_the_way_to_it():
    best = Best(step=400, dev_loss=2.0, waited=0)
    counts = []
    for step, loss in [(350, 2.5), (400, 2.0), (450, 2.1), (500, 2.1), (550, 1.9)]:
        best.take(step, loss)
        counts.append(best.waited)
    assert counts == [0, 0, 1, 2, 0]
    assert [Best(waited=3).ends(patience) for patience in (0, 2, 3, 4)] == [
        False,
        True,
        True,
        False,
    ]


# it is kept


def test_the_best_model_is_kept_beside_the_last(tmp_path):
    trainer = trained(tmp_path)
    loss, step = lowest(tmp_path)
    assert 0 < step < CONFIG.steps
    best = load_checkpoint(tmp_path, checkpoint="best")
    assert (best.step, trainer.best.step) == (step, step)
    assert best.dev_loss == trainer.best.dev_loss == pytest.approx(loss, abs=1e-6)
    assert dev_loss(best.make_model()) == best.dev_loss
    shorter = trained(config=replace(CONFIG, steps=step))
    assert same_bits(best.parameters, shorter.state.model.state_dict())
    # it is a whole checkpoint, which a run can go on from, with nothing left for the log
    assert len(best.pending) == 0
    rest = lm.Trainer.resume(best, DATASET, lm.RunEngine())
    rest.train()
    assert same_bits(rest.state.model.state_dict(), trainer.state.model.state_dict())


def test_without_a_folder_the_trainer_has_it(tmp_path):
    kept, loose = trained(tmp_path), trained()
    for trainer in (kept, loose):
        assert dev_loss(trainer.best_model()) == kept.best.dev_loss
        assert dev_loss(trainer.state.model) > kept.best.dev_loss
    with pytest.raises(ConfigError, match="no dev loss has been taken yet"):
        start().best_model()


def test_evaluated_only_at_the_end_the_best_is_the_last(tmp_path):
    trained(tmp_path, replace(CONFIG, steps=100, eval_every=0))
    best, last = (load_checkpoint(tmp_path, checkpoint=which) for which in ("best", "last"))
    assert best.step == last.step == 100
    assert same_bits(best.parameters, last.parameters)


def test_a_resumed_run_knows_the_best_before_it(tmp_path):
    whole = trained(tmp_path / "whole")
    _, step = lowest(tmp_path / "whole")
    parts = tmp_path / "parts"
    trained(parts, replace(CONFIG, steps=step + 100))
    (parts / "log.csv").unlink()  # it is known from its own file
    again = lm.Trainer.resume(
        load_checkpoint(parts), DATASET, lm.RunEngine(), config=CONFIG, run=RunFolder(parts)
    )
    assert (again.best.step, again.best.waited) == (step, 2)
    again.train()
    assert again.best == whole.best
    assert read_best(parts / "best.safetensors").step == step


def test_a_crash_after_the_best_changes_neither_the_best_nor_the_waiting(tmp_path):
    """The checkpoint is older than the best: the steps up to it are done again."""
    config = replace(CONFIG, checkpoint_every=0)
    whole = trained(tmp_path / "whole", config)
    _, step = lowest(tmp_path / "whole")
    crashed = tmp_path / "crashed"
    trained(crashed, replace(config, steps=step + 100))
    early = trained(tmp_path / "early", replace(config, steps=step - 100))
    (crashed / "model.safetensors").write_bytes(early.run.checkpoint.read_bytes())
    before = (crashed / "best.safetensors").read_bytes()
    again = lm.Trainer.resume(
        load_checkpoint(crashed), DATASET, lm.RunEngine(), config=config, run=RunFolder(crashed)
    )
    again.train()
    assert again.best == whole.best
    assert (crashed / "best.safetensors").read_bytes() == before


def test_a_run_without_a_best_file_goes_on_with_its_own_model_as_the_best(tmp_path):
    """As the best of a sweep does, or a run of an earlier version."""
    trained(tmp_path / "whole")
    _, step = lowest(tmp_path / "whole")
    run = RunFolder(tmp_path / "run")
    expected = dev_loss(trained(run.path, replace(CONFIG, steps=step)).state.model)
    run.best.unlink()
    again = lm.Trainer.resume(
        load_checkpoint(run.path), DATASET, lm.RunEngine(), config=CONFIG, run=run
    )
    again.train()
    assert (again.best.step, again.best.dev_loss) == (step, expected)
    assert load_checkpoint(run.path, checkpoint="best").step == step


def test_a_new_run_removes_the_best_of_the_old(tmp_path):
    trained(tmp_path)
    RunFolder(tmp_path).remove_earlier()
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_new_run_that_crashed_at_its_beginning_takes_no_best_from_the_old(tmp_path):
    trained(tmp_path, replace(CONFIG, steps=200))
    begun = replace(CONFIG, init="lecture", steps=50)  # its dev losses stay higher
    start(tmp_path, begun).save()
    again = lm.Trainer.resume(
        load_checkpoint(tmp_path), DATASET, lm.RunEngine(), run=RunFolder(tmp_path)
    )
    again.train()
    best = load_checkpoint(tmp_path, checkpoint="best")
    assert best.config == begun
    assert best.dev_loss == again.best.dev_loss == dev_loss(best.make_model())


def test_a_best_that_has_no_room_is_a_warning_and_the_one_before_counts(tmp_path, monkeypatch):
    def full(path, checkpoint, **options):
        if path.name == "best.safetensors" and checkpoint.step >= 100:
            raise WriteError(f"{path}: cannot be written: No space left on device")
        save_checkpoint(path, checkpoint, **options)

    monkeypatch.setattr(run_writer, "save_checkpoint", full)
    trainer = start(tmp_path, replace(CONFIG, steps=200))
    with pytest.warns(RuntimeWarning, match=r"best.safetensors: .* No space .*training goes on"):
        trainer.train()
    assert lowest(tmp_path)[1] > 50
    assert trainer.best.step == read_best(tmp_path / "best.safetensors").step == 50
    assert load_checkpoint(tmp_path).step == 200


def test_a_checkpoint_makes_the_best_durable(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(run_writer, "flush", lambda path: flushed.append((path.name, at())))
    trainer = start(tmp_path, replace(CONFIG, steps=300, checkpoint_every=100))
    at = lambda: trainer.state.step  # noqa: E731
    trainer.train()
    rows = [row for row in read_log(tmp_path / "log.csv") if row.dev_loss is not None]
    best = [min(range(i + 1), key=lambda k: rows[k].dev_loss) for i in (1, 3, 5)]
    fresh = [100 * i for i, b in enumerate(best, 1) if b >= 2 * i - 2]
    assert flushed == [("best.safetensors", step) for step in fresh]


def test_a_run_that_breaks_off_says_that_its_best_is_kept(tmp_path):
    broken = replace(CONFIG, lr=((0, 0.3), (230, 1e38)), checkpoint_every=0)
    with pytest.raises(NonFiniteLossError, match=r"the best model \(step \d+\) is kept in"):
        trained(tmp_path, broken)
    model, _ = load_model(tmp_path)
    assert dev_loss(model) == pytest.approx(lowest(tmp_path)[0], abs=1e-6)
    with pytest.raises(NonFiniteLossError, match=r"step 100 and the best model \(.*\) are kept in"):
        trained(tmp_path / "b", replace(broken, checkpoint_every=100, lr=((0, 0.3), (130, 1e38))))


# it is found again


def test_load_model_takes_the_best_where_there_is_one(tmp_path):
    trainer = trained(tmp_path)
    last = trainer.state.model.state_dict()
    best = trainer.best_model().state_dict()
    assert same_bits(load_model(tmp_path)[0].state_dict(), best)
    assert same_bits(load_model(tmp_path, checkpoint="best")[0].state_dict(), best)
    assert same_bits(load_model(tmp_path, checkpoint="last")[0].state_dict(), last)
    assert same_bits(load_model(tmp_path / "model.safetensors")[0].state_dict(), last)
    assert same_bits(load_model(tmp_path / "best.safetensors")[0].state_dict(), best)
    assert load_checkpoint(tmp_path).step == CONFIG.steps  # what a run goes on from
    with pytest.raises(ConfigError, match="checkpoint must be best or last, got 'first'"):
        load_model(tmp_path, checkpoint="first")
    with pytest.raises(ConfigError, match="is a file; the best checkpoint is that of a run folder"):
        load_model(tmp_path / "model.safetensors", checkpoint="best")
    (tmp_path / "best.safetensors").unlink()
    assert same_bits(load_model(tmp_path)[0].state_dict(), last)
    with pytest.raises(CheckpointError, match=r"no best.safetensors in it; a run keeps one"):
        load_model(tmp_path, checkpoint="best")


def test_a_damaged_best_is_refused_in_one_line_but_ends_no_run(tmp_path):
    trained(tmp_path, replace(CONFIG, steps=100))
    (tmp_path / "best.safetensors").write_bytes(b"\x00" * 50)
    with pytest.raises(CheckpointError, match=r"best.safetensors: damaged") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)
    last, run = load_checkpoint(tmp_path), RunFolder(tmp_path)
    config = replace(CONFIG, steps=200)
    with pytest.warns(RuntimeWarning, match=r"best.safetensors: damaged.*; the run goes on"):
        trainer = lm.Trainer.resume(last, DATASET, lm.RunEngine(), run=run, config=config)
    trainer.train()
    rows = [row for row in read_log(run.log) if row.dev_loss is not None and row.step >= 100]
    assert trainer.best.dev_loss == pytest.approx(min(row.dev_loss for row in rows), abs=1e-6)
    assert load_checkpoint(run.best).step == trainer.best.step


# patience


def test_an_interrupted_run_keeps_count_of_its_waiting(tmp_path):
    config = replace(CONFIG, steps=4000, patience=4)
    whole = trained(tmp_path / "whole", config)
    parts = tmp_path / "parts"
    trained(parts, replace(config, steps=whole.state.step - 100))  # ends while waiting
    again = lm.Trainer.resume(
        load_checkpoint(parts), DATASET, lm.RunEngine(), config=config, run=RunFolder(parts)
    )
    assert again.best.waited == 2
    again.train()
    assert again.state.step == whole.state.step
    assert again.ended
    assert log_without_seconds(parts / "log.csv") == log_without_seconds(tmp_path / "whole/log.csv")
    assert torch.equal(whole.state.generator.get_state(), again.state.generator.get_state())


def test_settings_of_before_patience_are_read():
    values = CONFIG.to_json()
    del values["patience"]
    assert lm.TrainConfig.from_json(values) == CONFIG
    assert all(preset.patience == 0 for preset in lm.PRESETS.values())
