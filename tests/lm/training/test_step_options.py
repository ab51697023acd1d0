"""The options of a step (optimizer, decay, dropout, …): the same numbers from every engine."""

from __future__ import annotations

import json
import os
import signal

import pytest
import safetensors.torch
import torch
from support.lm.training import (
    ADAMW,
    CONFIG,
    DATASET,
    OPTIONS,
    changed,
    engine_names,
    finished,
    losses_of,
    same_bits,
    trainer,
)
from torch.nn import functional as F

from mlpkern.lm.errors import CheckpointError
from mlpkern.lm.model.config import seed_for
from mlpkern.lm.saved.checkpoint import load_checkpoint
from mlpkern.lm.saved.run_folder import RunFolder
from mlpkern.lm.training.engines import ENGINES
from mlpkern.lm.training.evaluation import evaluate
from mlpkern.lm.training.stop_signal import Interrupted
from mlpkern.lm.training.trainer import Trainer
from mlpkern.reference.philox import dropout_mask

each_option = pytest.mark.parametrize("option", list(OPTIONS))


# the engines agree


@each_option
def test_engines_agree_and_leave_no_gradients(option):
    config = changed(**OPTIONS[option])
    assert config.beyond_plain_sgd()
    expected, _ = losses_of("stock", 200, config)
    plain, _ = losses_of("stock", 200, changed(lr=config.lr))
    assert not torch.allclose(expected, plain, rtol=1e-3, atol=1e-3)
    for name in ("ops", "run"):
        losses, state = losses_of(name, 200, config)
        # rounding grows along a trajectory: 1e-6 at once, still small after hundreds of steps
        torch.testing.assert_close(losses[:20], expected[:20], rtol=2e-5, atol=5e-6)
        torch.testing.assert_close(losses, expected, rtol=5e-3, atol=2e-3)
        assert all(p.grad is None for p in state.model.parameters())


def test_float64_engines_agree_more_closely():
    config = changed(**OPTIONS["everything"])
    runs = []
    for name in ENGINES:
        state = trainer(name, config).state
        state.model.double()
        losses = ENGINES[name]().run_chunk(state, 150)
        runs.append((losses.float(), *state.model.parameters(), *state.optimizer.tensors()))
    for other in runs[1:]:
        for ours, theirs in zip(other, runs[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


@engine_names
@each_option
def test_chunks_do_not_change_a_bit(name, option):
    config = changed(**OPTIONS[option])
    whole, end = losses_of(name, 90, config)
    cut, end_cut = losses_of(name, 90, config, cuts=(1, 2, 37))
    assert torch.equal(whole, cut)
    assert same_bits(end.model.state_dict(), end_cut.model.state_dict())


def test_the_masks_are_those_of_the_seed_and_the_step():
    """A step by hand: the loss of step 7 with the documented masks."""
    config = changed(**OPTIONS["dropout"], seed=3)
    state = trainer("run", config).state
    ENGINES["run"]().run_chunk(state, 7)
    model = state.model
    kept = state.generator.get_state()
    rows = state.draw_batches(1)[0]
    state.generator.set_state(kept)
    place = {"seed": seed_for(3, "dropout"), "step": 7}
    x = F.embedding(state.train.inputs[rows].long(), model.embedding.weight).flatten(1)
    x = x * dropout_mask(0.2, *x.shape, layer=0, **place)
    ((weight, bias),) = model.hidden_parameters()
    x = torch.tanh(F.linear(x, weight, bias))
    x = x * dropout_mask(0.3, *x.shape, layer=1, **place)
    loss = F.cross_entropy(model.output(x), state.train.targets[rows].long())
    (ours,) = ENGINES["run"]().run_chunk(state, 1)
    torch.testing.assert_close(ours, loss.detach(), rtol=1e-6, atol=1e-6)


def test_evaluation_neither_drops_nor_smooths():
    config = changed(**{**OPTIONS["everything"], "hidden_dropout": 0.6})
    run = trainer("run", config)
    run.train()
    split = DATASET.splits["dev"]
    kernels = [evaluate(run.state.model, split).loss]
    run.state.model.kernels = "stock"
    kernels.append(evaluate(run.state.model, split).loss)
    logits = run.state.model(split.inputs)
    expected = F.cross_entropy(logits, split.targets.long()).item()
    assert kernels == pytest.approx([expected] * 2, rel=1e-6)


# resuming


BOUNDARY = "mlpkern.lm.training.trainer.steps_to_boundary"


@engine_names
@pytest.mark.parametrize("option", ["momentum", "everything"])
def test_two_halves_equal_one_run_bit_for_bit(tmp_path, name, option, monkeypatch):
    config = changed(**OPTIONS[option], steps=200)
    whole = finished(tmp_path / "whole", name, config)
    run = trainer(name, config, run=RunFolder(tmp_path / "halves"))
    advance = run._advance

    def advance_and_stop(steps):
        os.kill(os.getpid(), signal.SIGINT)
        return advance(steps)

    run._advance = advance_and_stop
    with monkeypatch.context() as patched:
        patched.setattr(BOUNDARY, lambda _, step: min(123, 200 - step))
        with pytest.raises(Interrupted):
            run.train()
    rest = Trainer.resume(load_checkpoint(tmp_path / "halves"), DATASET, ENGINES[name]())
    assert 0 < rest.state.step < 200
    rest.train()
    assert same_bits(whole.state.model.state_dict(), rest.state.model.state_dict())
    pairs = zip(whole.state.optimizer.tensors(), rest.state.optimizer.tensors(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def rewritten(path, change_header=lambda _: None, change_tensors=lambda _: None):
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["mlpkern"])
    del metadata["mlpkern.sha256"], header["digest"]  # as in the files of earlier versions
    change_header(header)
    change_tensors(tensors)
    metadata["mlpkern"] = json.dumps(header)
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def test_a_checkpoint_of_the_first_format_goes_on(tmp_path):
    """It knows neither the settings nor the tensors that came with the options of a step."""
    run = finished(tmp_path, config=changed(steps=300))
    new = {
        "schedule", "warmup", "optimizer", "momentum", "weight_decay", "input_dropout",
        "hidden_dropout", "max_grad_norm", "label_smoothing",
    }  # fmt: skip

    def as_before(header):
        header["format"] = 1
        header["config"] = {k: v for k, v in header["config"].items() if k not in new}

    rewritten(run.run.checkpoint, as_before)
    with pytest.warns(RuntimeWarning, match="without a digest"):
        checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config == changed(steps=300)
    rest = Trainer.resume(checkpoint, DATASET, ENGINES["stock"](), config=CONFIG)
    rest.train()
    whole = trainer()
    whole.train()
    assert same_bits(whole.state.model.state_dict(), rest.state.model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("trainer.second.embedding"), r"second.embedding .* got none"),
        (lambda t: t.update({"trainer.first.x": torch.zeros(2)}), r"first.x .* expected none"),
        (
            lambda t: t.update({"trainer.first.output.bias": torch.zeros(2)}),
            r"first.output.bias .* got \(2,\)",
        ),
    ],
)
def test_damaged_momenta_are_refused(tmp_path, change, message):
    run = finished(tmp_path, "run", changed(steps=20, **ADAMW))
    rewritten(run.run.checkpoint, change_tensors=change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)
