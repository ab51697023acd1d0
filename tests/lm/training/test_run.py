"""The engine `run`: against the other engines and the plain call, its choice, its limits."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.lm.words import make_words

import mlpkern
from mlpkern import cpu
from mlpkern.lm.errors import NonFiniteLossError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.training import ops, run
from mlpkern.lm.training.chunks import CHUNK_SECONDS, FIRST_CHUNK, LONGEST_CHUNK, next_length
from mlpkern.lm.training.engines import ENGINES, OpsEngine, RunEngine, choose_engine
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

CONFIG = TrainConfig(
    embedding_dim=4, hidden=(24,), batch_size=8, steps=200, lr=((0, 0.1), (120, 0.02))
)
DATASET = build_dataset(make_words(), block_size=3)


def changed(**settings):
    return TrainConfig(**{**CONFIG.to_json(), **settings})


def start(name, config=CONFIG):
    return Trainer.start(config, DATASET, ENGINES[name]()).state


def losses_of(name, config=CONFIG):
    state = start(name, config)
    return ENGINES[name]().run_chunk(state, config.steps), state


# equals the other engines


# not the lecture's init with several layers: all N(0, 1), it is chaotic, and stock float32 is then
# as far from stock float64
@pytest.mark.parametrize(
    "settings", [{}, {"init": "lecture"}, {"hidden": (16, 9, 5)}, {"batch_size": 1}]
)
def test_three_engines_draw_the_same_batches_and_agree(settings):
    config = changed(**settings)
    runs = {name: losses_of(name, config) for name in ENGINES}
    expected, by_stock = runs["stock"]
    for losses, state in runs.values():
        assert torch.equal(state.generator.get_state(), by_stock.generator.get_state())
        assert losses.dtype == torch.float32
        # rounding grows along a trajectory: 1e-6 at once, still small after 200 steps
        torch.testing.assert_close(losses[:20], expected[:20], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(losses, expected, rtol=5e-3, atol=1e-3)


def test_engine_is_one_call_of_train_steps():
    losses, state = losses_of("run")
    by_hand = start("run")
    rows = by_hand.draw_batches(200)
    params = mlpkern.MLPParams.from_module(by_hand.model)
    lr = torch.tensor([0.1] * 120 + [0.02] * 80, dtype=torch.float64)
    train = DATASET.splits["train"]
    expected = mlpkern.train_steps(params, train.inputs, train.targets, rows, lr)
    assert torch.equal(losses, expected)
    for ours, theirs in zip(state.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_large_batches_are_drawn_in_pieces_without_a_change(monkeypatch):
    whole, state = losses_of("run")
    monkeypatch.setattr(run, "MAX_ROWS", 8 * 7)  # pieces of 7 steps
    cut, state_cut = losses_of("run")
    assert torch.equal(whole, cut)
    assert torch.equal(state.model.output.weight, state_cut.model.output.weight)


def test_float64_parameters_follow_stock_more_closely():
    states = {name: start(name) for name in ("run", "stock")}
    for state in states.values():
        state.model.double()
    ours, stock = (ENGINES[name]().run_chunk(state, 200) for name, state in states.items())
    assert ours.dtype == torch.float32  # what a checkpoint keeps
    torch.testing.assert_close(ours, stock.float(), rtol=1e-6, atol=1e-6)
    weights = [state.model.output.weight for state in states.values()]
    torch.testing.assert_close(*weights, rtol=1e-10, atol=1e-12)


# the choice


def set_status(monkeypatch, backends):
    """The engines find these backends."""
    for module in (run, ops):
        monkeypatch.setattr(module, "status", lambda name: backends[name])


def test_auto_takes_run_where_the_compiled_kernel_is(monkeypatch):
    monkeypatch.setattr(cpu, "train_steps", lambda *_: None, raising=False)
    set_status(monkeypatch, {"cpu": mlpkern.Backend(True, "", "compiled C++")})
    engine, why = choose_engine("auto", torch.device("cpu"))
    assert (engine.name, why) == ("run", "the fastest that applies on cpu")


def test_auto_says_why_it_does_not_take_run(monkeypatch):
    monkeypatch.setattr(ENGINES["ops"], "unavailable", staticmethod(lambda _: None))
    monkeypatch.delattr(cpu, "train_steps", raising=False)
    absent = {"cpu": mlpkern.Backend(False, "no compiler", "")}
    for backends, reason in [
        (mlpkern.backends(), mlpkern.backends()["cpu"].reason or "it has no train_steps"),
        (absent, "no compiler"),
    ]:
        set_status(monkeypatch, backends)
        engine, why = choose_engine("auto", torch.device("cpu"))
        assert engine.name == "ops"
        assert why == f"the fastest that applies on cpu; not run: backend cpu: {reason}"
    reason = RunEngine.unavailable(torch.device("mps"))
    assert reason == "train_steps has no kernels for mps"


def test_auto_takes_run_on_a_gpu_whose_kernels_are_compiled(monkeypatch):
    found = {"cuda": mlpkern.Backend(True, "", "compiled CUDA C++")}
    set_status(monkeypatch, found)
    monkeypatch.setattr(run, "has_op", lambda name, op: (name, op) == ("cuda", "train_steps"))
    monkeypatch.setattr(run.torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(run, "select", lambda op, tensor: None)
    engine, why = choose_engine("auto", torch.device("cuda"))
    assert (engine.name, why) == ("run", "the fastest that applies on cuda")
    found["cuda"] = mlpkern.Backend(False, "no nvcc", "")
    assert RunEngine.unavailable(torch.device("cuda")) == "backend cuda: no nvcc"


def test_auto_takes_ops_on_a_gpu_that_only_triton_serves(monkeypatch):
    found = {
        "cuda": mlpkern.Backend(False, "no nvcc", ""),
        "triton": mlpkern.Backend(True, "", "Triton"),
    }
    set_status(monkeypatch, found)
    engine, why = choose_engine("auto", torch.device("cuda"))
    assert engine.name == "ops"
    assert why.startswith("the fastest that applies on cuda; not run: ")
    found["triton"] = mlpkern.Backend(False, "no Triton", "")
    engine, why = choose_engine("auto", torch.device("cuda"))
    assert engine.name == "stock"
    assert why.endswith("not ops: backend cuda: no nvcc; backend triton: no Triton")


def test_auto_obeys_a_named_backend_without_train_steps(monkeypatch):
    if not mlpkern.backends()["cpu"].available:
        pytest.skip("backend cpu: " + mlpkern.backends()["cpu"].reason)

    def none_named(op, tensor):
        raise RuntimeError(f"MLPKERN_BACKEND: backend triton has no {op}; choose another backend")

    monkeypatch.setattr(run, "select", none_named)
    engine, why = choose_engine("auto", torch.device("cpu"))
    assert engine.name == "ops"
    assert "not run: MLPKERN_BACKEND: backend triton has no train_steps" in why
    split = DATASET.splits["dev"]
    model = start("ops").model
    assert evaluate(model, split) == evaluate(model, split, batch_size=100_000)


# every backend of the ops


def test_the_engine_of_the_ops_agrees_with_stock_on_every_backend(backend, device):
    config = changed(init="lecture", steps=12)
    expected, by_stock = losses_of("stock", config)
    state = start("ops", config)
    state.model.to(device)
    state.train = state.train.to(device)
    losses = OpsEngine().run_chunk(state, config.steps)
    torch.testing.assert_close(losses.cpu(), expected, rtol=1e-4, atol=1e-4)
    ours, theirs = state.model.state_dict(), by_stock.model.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].cpu(), value, rtol=1e-4, atol=1e-4)


# evaluation


@pytest.mark.parametrize("hidden", [(24,), (16, 9)])
def test_whole_split_in_one_call_equals_batches_through_the_model(hidden, monkeypatch):
    monkeypatch.setattr(RunEngine, "unavailable", staticmethod(lambda _: None))
    model = start("run", changed(hidden=hidden, init="lecture")).model
    for split in DATASET.splits.values():
        at_once = evaluate(model, split)
        batches = evaluate(model, split, batch_size=7)
        assert at_once.loss == pytest.approx(batches.loss, rel=1e-6)
        assert at_once.accuracy == pytest.approx(batches.accuracy, abs=1e-7)
        assert at_once.rows == batches.rows == len(split)


def test_a_stock_model_is_evaluated_by_plain_torch(monkeypatch):
    def never(*_):
        raise AssertionError("mlpkern.evaluate")

    monkeypatch.setattr(RunEngine, "unavailable", staticmethod(lambda _: None))
    monkeypatch.setattr(mlpkern, "evaluate", never)
    evaluate(start("stock").model, DATASET.splits["dev"])
    with pytest.raises(AssertionError, match=r"mlpkern\.evaluate"):
        evaluate(start("run").model, DATASET.splits["dev"])


# chunks and limits


@pytest.mark.parametrize("first", [0.01, 3.0])  # the first call on a GPU loads libraries
@pytest.mark.parametrize("pace", [5e-6, 1e-3])
def test_chunks_grow_to_their_length_and_stay_below_a_second(first, pace):
    length = longest = FIRST_CHUNK
    seconds, taken = first, [first]
    for _ in range(12):
        longest = next_length(length, seconds, longest)
        length = longest
        seconds = 3e-3 + length * pace  # a call costs something whatever its length
        taken.append(seconds)
    assert max(taken[1:]) < 0.5
    assert length == LONGEST_CHUNK or seconds > CHUNK_SECONDS / 2


def test_a_loss_that_is_not_finite_names_its_step_and_warns_no_more(monkeypatch):
    config = changed(lr=((0, 0.1), (160, 1e38)))
    monkeypatch.setattr(run, "MAX_ROWS", 8 * 9)  # the bad step lies inside a piece
    losses, _ = losses_of("run", config)
    bad = int((~losses.isfinite()).nonzero()[0])
    assert 160 < bad < 170
    assert not losses[bad:].isfinite().any()
    trainer = Trainer.start(config, DATASET, RunEngine())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NonFiniteLossError, match=f"step {bad}: the loss is ") as error:
            trainer.train()
    assert error.value.step == bad
