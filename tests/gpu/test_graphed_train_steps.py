"""``train_steps`` by ops, uncaptured on a CPU, equals the reference with every option.

test_kept_graphs.py counts captures; test_training.py captures and replays on a GPU.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from support.train_problems import FLOATS, OPTIONS, check, problem

import mlpkern
from mlpkern import OptimizerState
from mlpkern.cuda import graphed_train_steps, replayed_masks
from mlpkern.ops import train_steps as op
from mlpkern.reference import backend as reference
from mlpkern.reference.philox import dropout_mask

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _by_the_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """``mlpkern.train_steps`` runs by ops, with the kernels of the CPU."""
    run_by(graphed_train_steps, monkeypatch)
    graphed_train_steps.empty_cache()


def run_by(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "select", lambda _op, _tensor: module)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_equals_the_reference(name, dtype):
    check(problem(dtype=dtype), **OPTIONS[name])


@pytest.mark.parametrize("name", ["sgd", "all of sgd", "all of adamw"])
def test_depth(name):
    for dtype in FLOATS:
        check(problem(hidden=(9, 16, 7), C=5, dtype=dtype), **OPTIONS[name])


@pytest.mark.parametrize("seed", [3, [3, 2**64 - 1, -3]])
def test_models_one_after_another(seed):
    case = problem(M=3)
    case.batches = torch.randint(0, 60, (3, 30, 8), dtype=torch.int16)
    case.inputs, case.targets = case.inputs.to(torch.uint8), case.targets.int()
    case.lr = torch.rand(3, 30) * 0.2
    own = {
        "weight_decay": [0.0, 0.1, 0.01],
        "input_dropout": [0.3, 0.0, 0.1],
        "hidden_dropout": [0.0, 0.2, 0.5],
    }
    check(case, **own, seed=seed, momentum=0.9)
    check(case, **own, seed=seed, optimizer="adamw", max_grad_norm=0.6, lr=0.01)


@pytest.mark.parametrize("name", ["all of sgd", "all of adamw"])
def test_a_run_in_pieces_has_the_bits_of_one(name):
    case = problem(M=2)
    options = {"lr": 0.1, **OPTIONS[name]}
    lr, kind = options.pop("lr"), options.get("optimizer", "sgd")
    results = []
    for cuts in ([30], [1, 12, 17]):
        params = case.params.clone()
        state = OptimizerState.zeros(params, kind, options.get("momentum", 0.0))
        rows = case.batches.split(cuts)
        parts = [
            mlpkern.train_steps(params, case.inputs, case.targets, part, lr, state=state, **options)
            for part in rows
        ]
        results.append([torch.cat(parts, 1), *params.tensors(), *state.tensors()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_strided_parameters_are_trained_where_they_lie():
    case = problem()
    expected, trained = case.run(momentum=0.9)
    turned = case.params.map(lambda t: t.t().contiguous().t() if t.dim() == 2 else t.clone())
    losses = mlpkern.train_steps(
        turned, case.inputs, case.targets, case.batches, case.lr, momentum=0.9
    )
    assert torch.equal(losses, expected)
    for one, other in zip(turned.tensors(), trained.tensors(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw"])
def test_a_loss_that_is_not_finite_stops_its_model_alone(name, monkeypatch):
    case = problem(M=3, dtype=torch.float64)
    options = {"lr": 0.1, **OPTIONS[name]}
    lr = torch.full((3, 30), options.pop("lr"), dtype=torch.float64)
    lr[1, 4] = 1e308  # so step 5 has no finite loss
    results = []
    for module in (graphed_train_steps, reference):
        run_by(module, monkeypatch)
        params = case.params.clone()
        kind = options.get("optimizer", "sgd")
        state = OptimizerState.zeros(params, kind, options.get("momentum", 0.0))
        with pytest.warns(RuntimeWarning, match="model 1 at step 5"):
            losses = mlpkern.train_steps(
                params, case.inputs, case.targets, case.batches, lr, state=state, **options
            )
        assert losses[[0, 2]].isfinite().all()
        assert losses[1, :5].isfinite().all()
        # inf or nan, depending on the order of the overflowing terms of a sum
        assert not losses[1, 5].isfinite()
        assert losses[1, 6:].isnan().all()
        results.append([losses[[0, 2]], losses[1, :5], *params.tensors(), *state.tensors()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_under_inference_mode_as_without():
    case = problem(M=2)
    expected, trained = case.run(momentum=0.9, hidden_dropout=0.1)
    with torch.inference_mode():
        losses, params = case.run(momentum=0.9, hidden_dropout=0.1)
    assert torch.equal(losses, expected)
    for one, other in zip(params.tensors(), trained.tensors(), strict=True):
        assert torch.equal(one, other)


def test_a_stopped_model_stays_as_it_is():
    case = problem(M=2)
    state = OptimizerState.zeros(case.params)
    state.stopped[0], before = 7, case.params.clone()
    losses = mlpkern.train_steps(
        case.params, case.inputs, case.targets, case.batches, 0.1, state=state
    )
    assert losses[0].isnan().all()
    assert losses[1].isfinite().all()
    assert state.stopped.tolist() == [7, -1]
    for one, other in zip(case.params.model(0).tensors(), before.model(0).tensors(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_masks_drawn_ahead_are_those_of_the_reference(ahead, monkeypatch):
    monkeypatch.setattr(replayed_masks, "_DRAWN", ahead * 5 * (6 + 9 + 2))
    cpu = torch.device("cpu")
    masks = replayed_masks.ReplayedMasks(8, 5, [6, 9, 2], torch.float64, cpu)
    for seed, stream, step in ((2**63 + 9, 3, 0), (-1, 0, 2**32 - 3)):
        masks.load((0.3, 0.6), seed, stream, step, 8)
        for s in range(8):
            masks.draw_before(s)
            for layer, width in enumerate([6, 9, 2]):
                x = torch.randn(5, width, dtype=torch.float64)
                mask = dropout_mask(
                    0.6 if layer else 0.3, 5, width, seed=seed, step=step + s, layer=layer,
                    stream=stream, dtype=torch.float64,
                )  # fmt: skip
                assert torch.equal(masks.apply(torch.tensor([s]), layer, x), x * mask)
