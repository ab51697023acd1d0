"""The folder of a training: its log, checkpoints, resuming to the bit, stopping in the middle."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch
from support.lm.training import (
    CONFIG,
    DATASET,
    engine_names,
    finished,
    log_without_seconds,
    losses_of,
    same_bits,
    trainer,
)

from mlpkern.lm.errors import CheckpointError, NonFiniteLossError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.saved.log import LogRow, append_rows, read_log, truncate_log
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.chunks import steps_to_boundary
from mlpkern.lm.training.engines import ENGINES
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.stop_signal import Interrupted
from mlpkern.lm.training.trainer import Trainer

# log, checkpoints, resuming


@engine_names
@pytest.mark.parametrize("stop", [300, 123])
def test_two_halves_equal_one_run_bit_for_bit(tmp_path, name, stop, monkeypatch):
    whole = finished(tmp_path / "whole", name)
    run = trainer(name, run=RunFolder(tmp_path / "halves"))

    class Stopping:
        """Asks for a stop as Ctrl-C would, at one step in the middle of anything."""

        def advance(self, steps):
            if run.state.step >= stop:
                os.kill(os.getpid(), signal.SIGINT)

        def row(self, row): ...

        def close(self): ...

    run.progress = Stopping()

    def boundary(config, step):
        return min(steps_to_boundary(config, step), abs(stop - step) or 600)

    with monkeypatch.context() as patched:
        patched.setattr("mlpkern.lm.training.trainer.steps_to_boundary", boundary)
        with pytest.raises(Interrupted) as stopped:
            run.train()
    assert stopped.value.step == stop
    assert stopped.value.signum == signal.SIGINT
    checkpoint = load_checkpoint(tmp_path / "halves")
    assert checkpoint.step == stop
    rest = Trainer.resume(checkpoint, DATASET, ENGINES[name](), run=RunFolder(tmp_path / "halves"))
    rest.train()
    assert same_bits(whole.state.model.state_dict(), rest.state.model.state_dict())
    assert torch.equal(whole.state.generator.get_state(), rest.state.generator.get_state())
    assert rest.seconds > checkpoint.seconds
    logs = [log_without_seconds(tmp_path / part / "log.csv") for part in ("halves", "whole")]
    assert logs[0] == logs[1]


@engine_names
def test_resume_after_a_crash_writes_the_same_log(tmp_path, name):
    finished(tmp_path / "whole", name)
    crashed = trainer(name, run=RunFolder(tmp_path / "crashed"))
    save, saves = crashed.save, []

    def save_then_die():
        if len(saves) == 2:
            raise MemoryError  # at step 450; the log has rows to 450, the checkpoint is of 300
        saves.append(crashed.state.step)
        save()

    crashed.save = save_then_die
    with pytest.raises(MemoryError):
        crashed.train()
    assert saves == [150, 300]
    checkpoint = load_checkpoint(tmp_path / "crashed")
    assert checkpoint.step == 300
    run = RunFolder(tmp_path / "crashed")
    Trainer.resume(checkpoint, DATASET, ENGINES[name](), run=run).train()
    assert log_without_seconds(run.log) == log_without_seconds(tmp_path / "whole" / "log.csv")


def test_interrupted_interval_is_averaged_over_all_its_steps(tmp_path):
    config = TrainConfig(**{**CONFIG.to_json(), "log_every": 100, "eval_every": 0})
    finished(tmp_path / "whole", config=config)
    (tmp_path / "parts").mkdir()
    run = trainer("stock", config, run=RunFolder(tmp_path / "parts"))
    run._advance(100)
    run._after_chunk()
    run._advance(30)
    run.save()
    checkpoint = load_checkpoint(tmp_path / "parts")
    assert len(checkpoint.pending) == 30
    rest = Trainer.resume(checkpoint, DATASET, ENGINES["stock"](), run=run.run)
    rest.train()
    assert log_without_seconds(run.run.log) == log_without_seconds(tmp_path / "whole" / "log.csv")


def test_more_steps_go_on_from_the_end(tmp_path):
    short = TrainConfig(**{**CONFIG.to_json(), "steps": 300})
    finished(tmp_path, config=short)
    checkpoint = load_checkpoint(tmp_path)
    longer = Trainer.resume(checkpoint, DATASET, ENGINES["stock"](), config=CONFIG)
    longer.train()
    whole = trainer()
    whole.train()
    assert same_bits(whole.state.model.state_dict(), longer.state.model.state_dict())


def test_log_rows_are_at_the_intervals(tmp_path):
    run = finished(tmp_path)
    rows = read_log(tmp_path / "log.csv")
    assert [row.step for row in rows] == list(range(50, 601, 50))
    assert [row.step for row in rows if row.dev_loss is not None] == [200, 400, 600]
    assert [row.lr for row in rows] == [0.1] * 8 + [0.02] * 4
    dev = evaluate(run.state.model, DATASET.splits["dev"]).loss
    assert rows[-1].dev_loss == pytest.approx(dev, abs=1e-6)
    seconds = [row.seconds for row in rows]
    assert seconds == sorted(seconds)
    losses, _ = losses_of("stock", 50)
    assert rows[0].train_loss == pytest.approx(losses.mean().item(), abs=1e-6)


def test_without_intervals_only_the_end_is_evaluated_and_saved(tmp_path):
    config = TrainConfig(**{**CONFIG.to_json(), "eval_every": 0, "checkpoint_every": 0})
    finished(tmp_path, config=config)
    rows = read_log(tmp_path / "log.csv")
    assert [row.step for row in rows] == list(range(50, 601, 50))
    assert [row.step for row in rows if row.dev_loss is not None] == [600]
    assert load_checkpoint(tmp_path).step == 600


def test_log_survives_a_torn_last_line_and_names_a_bad_one(tmp_path):
    path = tmp_path / "log.csv"
    append_rows(path, [LogRow(step, 0.1, 2.5, None, 1.0) for step in (10, 20, 30)])
    with path.open("a") as file:
        file.write("40,0.1,2.")
    assert [row.step for row in read_log(path)] == [10, 20, 30]
    truncate_log(path, 20)
    append_rows(path, [LogRow(30, 0.1, 2.25, 2.5, 1.5)])
    assert read_log(path)[1:] == [
        LogRow(20, 0.1, 2.5, None, 1.0), LogRow(30, 0.1, 2.25, 2.5, 1.5),
    ]  # fmt: skip
    path.write_text(path.read_text() + "x,1\n")
    with pytest.raises(CheckpointError, match=r"log.csv, line 5: not a log row"):
        read_log(path)
    path.write_text("a,b\n")
    with pytest.raises(CheckpointError, match="line 1: expected step,lr,train_loss,dev_loss"):
        read_log(path)


def test_zero_steps_saves_the_initial_model(tmp_path):
    config = TrainConfig(**{**CONFIG.to_json(), "steps": 0})
    run = finished(tmp_path, config=config)
    assert load_checkpoint(tmp_path).step == 0
    assert same_bits(load_checkpoint(tmp_path).parameters, run.state.model.state_dict())


# stopping


@engine_names
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, name):
    # the rate after step 160 is so large that the next loss overflows
    config = TrainConfig(**{**CONFIG.to_json(), "lr": ((0, 0.1), (160, 1e38))})
    run = trainer(name, config, run=RunFolder(tmp_path))
    with pytest.raises(NonFiniteLossError, match=r"step 16\d: .*checkpoint of step 150") as error:
        run.train()
    assert 160 <= error.value.step < 170
    assert load_checkpoint(tmp_path).step == 150
    assert [row.step for row in read_log(tmp_path / "log.csv")] == [50, 100, 150]


@engine_names
def test_rows_before_a_bad_loss_are_written_although_its_chunk_is_lost(tmp_path, name):
    config = TrainConfig(
        **{**CONFIG.to_json(), "lr": ((0, 0.1), (160, 1e38)), "eval_every": 0, "log_every": 40}
    )
    run = trainer(name, config, run=RunFolder(tmp_path))
    with pytest.raises(NonFiniteLossError, match="no checkpoint was written"):
        run._advance(600)
    rows = read_log(tmp_path / "log.csv")
    assert [row.step for row in rows] == [40, 80, 120, 160]
    losses, _ = losses_of(name, 160, config)
    means = [part.double().mean().item() for part in losses.split(40)]
    assert [row.train_loss for row in rows] == pytest.approx(means, abs=1e-6)
    seconds = [row.seconds for row in rows]
    assert seconds == sorted(seconds)


def test_a_parameter_that_is_not_finite_is_never_saved(tmp_path):
    # the last step overflows the parameters although its loss was still finite
    config = TrainConfig(**{**CONFIG.to_json(), "lr": ((0, 0.1), (599, 3e38))})
    run = trainer("stock", config, run=RunFolder(tmp_path))
    with torch.no_grad():
        run.state.model.output.bias.fill_(1.0)
    run.state.model.output.bias.register_hook(lambda g: g * 1e6)
    with pytest.raises(NonFiniteLossError):
        run.train()
    for p in load_checkpoint(tmp_path).parameters.values():
        assert torch.isfinite(p).all()


def test_sigterm_saves_and_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run = trainer(run=RunFolder(tmp_path))
    advance = run._advance

    def advance_and_terminate(steps):
        os.kill(os.getpid(), signal.SIGTERM)
        return advance(steps)

    run._advance = advance_and_terminate
    with pytest.raises(Interrupted, match=f"SIGTERM at step .*--resume {tmp_path}") as stopped:
        run.train()
    assert stopped.value.signum == signal.SIGTERM
    assert load_checkpoint(tmp_path).step == stopped.value.step == run.state.step
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_trains_in_another_thread_where_signals_cannot_be_handled():
    run = trainer()
    thread = threading.Thread(target=run.train)
    thread.start()
    thread.join()
    assert run.state.step == 600
