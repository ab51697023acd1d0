"""Training: engines against the lecture's loop and each other, chunks, resuming, stopping, logs."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch
from lm_words import make_words, one_thread  # noqa: F401
from torch.nn import functional as F

from mlpkern.lm import engines
from mlpkern.lm.checkpoint import load_checkpoint
from mlpkern.lm.config import PRESETS, TrainConfig, learning_rate, seed_for
from mlpkern.lm.data import build_dataset
from mlpkern.lm.engines import ENGINES, choose_engine
from mlpkern.lm.errors import CheckpointError, ConfigError, NonFiniteLossError
from mlpkern.lm.evaluate import evaluate
from mlpkern.lm.log import LogRow, append_row, read_log, truncate_log
from mlpkern.lm.run_folder import RunFolder
from mlpkern.lm.stop_signal import Interrupted
from mlpkern.lm.train import Trainer

CONFIG = TrainConfig(
    embedding_dim=4, hidden=(24,), batch_size=8, steps=600, lr=((0, 0.1), (400, 0.02)),
    log_every=50, eval_every=200, checkpoint_every=150,
)  # fmt: skip
DATASET = build_dataset(make_words(), block_size=3)

engine_names = pytest.mark.parametrize("name", list(ENGINES))


def trainer(name="stock", config=CONFIG, dataset=DATASET, **options):
    return Trainer.start(config, dataset, ENGINES[name](), **options)


def losses_of(name, steps, config=CONFIG, cuts=()):
    """The losses of the first ``steps`` steps and the state after them; ``cuts`` end chunks."""
    run = trainer(name, config)
    ends = [*cuts, steps]
    losses = []
    for end in ends:
        losses.append(run.engine.run_chunk(run.state, end - run.state.step))
        run.state.step = end
    return torch.cat(losses), run.state


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


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
    monkeypatch.setattr(engines, "MAX_GATHERED_IDS", 8 * 3 * 7)  # pieces of 7 steps in a chunk
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


# seeds and schedule


def test_seeds_of_purposes_differ_and_are_stable():
    assert seed_for(0, "init") != seed_for(0, "batches") != seed_for(1, "batches")
    assert seed_for(0, "init") == 7603399658046324659


def test_staged_learning_rate():
    schedule = ((0, 0.1), (100, 0.01), (200, 0.001))
    assert [learning_rate(schedule, s) for s in (0, 99, 100, 199, 200, 10**9)] == [
        0.1, 0.1, 0.01, 0.01, 0.001, 0.001,
    ]  # fmt: skip
    state = trainer().state
    state.step = 398
    assert state.learning_rates(4).tolist() == [0.1, 0.1, 0.02, 0.02]


def test_preset_lecture():
    p = PRESETS["lecture"]
    assert (p.block_size, p.embedding_dim, p.hidden, p.batch_size) == (3, 10, (200,), 32)
    assert (p.steps, p.lr, p.split_seed) == (200_000, ((0, 0.1), (100_000, 0.01)), 42)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"hidden": ()}, "hidden must be one width or more"),
        ({"hidden": (3, 0)}, "hidden must be one width or more"),
        ({"init": "x"}, "init must be one of lecture, scaled, got 'x'"),
        ({"lr": ()}, "lr must start at step 0"),
        ({"lr": ((5, 0.1),)}, "lr must start at step 0"),
        ({"lr": ((0, 0.1), (9, 0.2), (3, 0.1))}, "lr must have rising steps"),
        ({"lr": ((0, float("nan")),)}, "lr from step 0 must be finite"),
        ({"lr": ((0, 0.1), (5, -1.0))}, "lr from step 5 must be finite and at least 0"),
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


# the run folder: log, checkpoints, resuming


def finished(path, name="stock", config=CONFIG):
    run = trainer(name, config, run=RunFolder(path))
    run.train()
    return run


def log_without_seconds(path):
    return [(r.step, r.lr, r.train_loss, r.dev_loss) for r in read_log(path)]


@engine_names
@pytest.mark.parametrize("stop", [300, 123])
def test_two_halves_equal_one_run_bit_for_bit(tmp_path, name, stop):
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
    boundary = run._steps_to_boundary
    run._steps_to_boundary = lambda: min(boundary(), abs(stop - run.state.step) or 600)
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
    for step in (10, 20, 30):
        append_row(path, LogRow(step, 0.1, 2.5, None, 1.0))
    with path.open("a") as file:
        file.write("40,0.1,2.")
    assert [row.step for row in read_log(path)] == [10, 20, 30]
    truncate_log(path, 20)
    append_row(path, LogRow(30, 0.1, 2.25, 2.5, 1.5))
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
