"""The errors of ``train_steps``, which are raised before anything is changed."""

from __future__ import annotations

import math
import re
import sys

import pytest
import torch
from support.train_problems import Problem, problem

import mlpkern
from mlpkern import MLPParams, OptimizerState


def refuse(case: Problem, error: type[Exception], message: str, **options) -> None:
    """The call raises, and neither parameters nor state were written."""
    params, state = case.params, options.get("state")
    parts = [*params.tensors(), *(state.tensors() if isinstance(state, OptimizerState) else [])]
    before = [(tensor._version, tensor.detach().clone()) for tensor in parts]
    data = (case.inputs, case.targets, case.batches, case.lr)
    with pytest.raises(error, match=f"^train_steps: {message}"):
        mlpkern.train_steps(params, *data, **options)
    for tensor, (version, value) in zip(parts, before, strict=True):
        assert tensor._version == version
        assert torch.equal(tensor, value)


# Ids and row numbers out of range: 27 ids, 30 classes, 90 rows.


def small(device: str, M: int | None = None) -> Problem:
    return problem(V=27, C=30, rows=90, S=4, N=8, M=M, device=device)


@pytest.mark.parametrize("models", [None, 1, 3])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_rows_out_of_range(backend, device, models, dtype):
    for position, value in (((2, 7), 90), ((0, 0), -1), ((3, 5), 30_000)):
        case = small(device, models)
        case.batches[position] = value
        case.batches = case.batches.to(dtype)
        where = f"{position[0]}, {position[1]}"
        refuse(case, IndexError, rf"batches\[{where}\] is {value}, expected 0 <= row < 90$")


def test_rows_out_of_range_of_one_model(backend, device):
    case = small(device, 3)
    case.batches = case.batches.repeat(3, 1, 1)
    case.batches[1, 2, 7] = 99
    refuse(case, IndexError, r"batches\[1, 2, 7\] is 99, expected 0 <= row < 90$")


@pytest.mark.parametrize("models", [None, 3])
def test_ids_out_of_range(backend, device, models):
    for value in (27, -1, 32_000):
        case = small(device, models)
        case.inputs[3, 1] = value
        case.batches[1, 2] = 3
        refuse(case, IndexError, rf"inputs\[3, 1\] is {value}, expected 0 <= id < 27$")
        case.inputs = case.inputs.short()
        refuse(case, IndexError, rf"inputs\[3, 1\] is {value}, expected 0 <= id < 27$")


def test_ids_and_targets_out_of_range_in_a_large_training_set(backend, device):
    for name, position, noun, limit in (
        ("inputs", (70, 2), "id", 27),
        ("targets", (70,), "target", 30),
    ):
        case = problem(V=27, C=30, rows=5000, S=2, N=3, device=device)
        getattr(case, name)[position] = limit
        case.batches[1, 1] = 70
        where = ", ".join(map(str, position))
        refuse(case, IndexError, rf"{name}\[{where}\] is {limit}, expected 0 <= {noun} < {limit}$")


@pytest.mark.parametrize("models", [None, 3])
def test_targets_out_of_range(backend, device, models):
    for value in (30, -100):
        case = small(device, models)
        case.targets[5] = value
        case.batches[3, 7] = 5
        refuse(case, IndexError, rf"targets\[5\] is {value}, expected 0 <= target < 30$")


def test_uint8_out_of_range(backend, device):
    case = small(device)
    case.inputs = case.inputs.to(torch.uint8)
    case.inputs[8, 0] = 255
    case.batches[0, 0] = 8
    refuse(case, IndexError, r"inputs\[8, 0\] is 255, expected 0 <= id < 27$")


def test_no_rows(backend, device):
    case = problem(rows=5, S=1, device=device)
    case.inputs, case.targets = case.inputs[:0], case.targets[:0]
    refuse(case, IndexError, r"batches\[0, 0\] is \d, expected 0 <= row < 0$")


# Checks that do not depend on the backend, on one model: V=11, T=3, D=4, H=16, N=8, S=30.


@pytest.mark.parametrize(
    ("name", "make", "error", "message"),
    [
        ("inputs", lambda t: t.tolist(), TypeError, "inputs must be a torch.Tensor, got list"),
        ("inputs", lambda t: t.float(), TypeError, "inputs must be uint8, .*, got float32"),
        ("inputs", lambda t: t[:, :2], ValueError, r"inputs must be \(rows, 3\) .* got \(60, 2\)$"),
        ("inputs", lambda t: t[0], ValueError, r"inputs must be \(rows, 3\) .* got \(3,\)$"),
        ("inputs", lambda t: t.to("meta"), ValueError, "inputs must be on cpu like params, got me"),
        ("targets", lambda t: t.bool(), TypeError, "targets must be uint8, .*, got bool"),
        ("targets", lambda t: t[1:], ValueError, r"targets must be \(60,\) .* got \(59,\)$"),
        ("targets", lambda t: t[:, None], ValueError, r"targets must be \(60,\) .* got \(60, 1\)$"),
        ("batches", lambda t: t.double(), TypeError, "batches must be uint8, .*, got float64"),
        ("batches", lambda t: t[0], ValueError, r"batches must be \(S, N\), got \(8,\)$"),
        ("batches", lambda t: t[None], ValueError, r"batches must be \(S, N\), got \(1, 30, 8\)$"),
        ("batches", lambda t: t[:, :0], ValueError, r"batches must have .* row, got \(30, 0\)$"),
        ("lr", lambda _: "0.1", TypeError, "lr must be a number or a tensor, got str"),
        ("lr", lambda _: [0.1] * 29, ValueError, r"lr must be a number, \(30,\), got \(29,\)$"),
        ("lr", lambda _: torch.ones(1, 30), ValueError, r"lr must be .*\(30,\), got \(1, 30\)$"),
        ("lr", lambda _: -0.1, ValueError, "lr is -0.1, expected a finite number >= 0$"),
        ("lr", lambda _: math.nan, ValueError, "lr is nan, expected"),
        ("lr", lambda _: 1e39, ValueError, "lr is 1e\\+39, expected"),  # inf in float32
        ("lr", lambda _: [0.1] * 29 + [math.inf], ValueError, r"lr\[29\] is inf, expected"),
    ],
)
def test_bad_data(name, make, error, message):
    case = problem()
    setattr(case, name, make(getattr(case, name)))
    refuse(case, error, message)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adam"}, ValueError, "optimizer must be 'sgd' or 'adamw', got 'adam'"),
        ({"momentum": -0.5}, ValueError, "momentum must be finite and >= 0, got -0.5"),
        ({"momentum": "0.9"}, TypeError, "momentum must be a float, got str"),
        ({"nesterov": True}, ValueError, "nesterov needs a momentum > 0, got 0.0"),
        ({"optimizer": "adamw", "momentum": 0.9}, ValueError, "momentum and nesterov are for"),
        ({"betas": 0.9}, TypeError, "betas must be two numbers, got 0.9"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be 0 <= beta < 1, got 1.0"),
        ({"eps": -1e-8}, ValueError, "eps must be finite and >= 0, got -1e-08"),
        ({"max_grad_norm": math.nan}, ValueError, "max_grad_norm must be None or >= 0, got nan"),
        ({"max_grad_norm": -1}, ValueError, "max_grad_norm must be None or >= 0, got -1"),
        ({"label_smoothing": 1.01}, ValueError, "label_smoothing must be 0 to 1, got 1.01"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay is -0.1, expected finite and >= 0"),
        ({"weight_decay": [0.1, 0.1]}, ValueError, r"weight_decay must be .* got \(2,\)$"),
        ({"input_dropout": 1.0}, ValueError, "input_dropout is 1.0, expected 0 <= input_dropout"),
        ({"hidden_dropout": math.nan}, ValueError, "hidden_dropout is nan, expected 0 <="),
        ({"hidden_dropout": [-0.5]}, ValueError, r"hidden_dropout\[0\] is -0.5, expected 0 <="),
        ({"hidden_dropout": None}, TypeError, "hidden_dropout must be a number .* got NoneType"),
        ({"seed": 0.5}, TypeError, r"seed must be an int or \(1,\) ints, got float"),
        ({"seed": [1, 2]}, ValueError, r"seed must be an int or \(1,\) ints, got 2$"),
        ({"seed": 2**64}, ValueError, "seed is 18446744073709551616, expected -2"),
        ({"state": {}}, TypeError, "state must be a mlpkern.OptimizerState, got dict"),
    ],
)
def test_bad_options(options, error, message):
    refuse(problem(), error, message, **options)


def test_bad_data_of_several_models():
    def case() -> Problem:
        return problem(M=3, S=5)

    for name, value, message in (
        ("batches", torch.zeros(2, 5, 8).long(), r"batches must be \(S, N\) or \(3, S, N\), got"),
        ("lr", torch.ones(3), r"lr must be a number, \(5,\) or \(3, 5\), got \(3,\)$"),
        ("lr", torch.ones(2, 5), r"lr must be a number, \(5,\) or \(3, 5\), got \(2, 5\)$"),
    ):
        bad = case()
        setattr(bad, name, value)
        refuse(bad, ValueError, message)
    bad = case()
    bad.lr = torch.full((3, 5), 0.1)
    bad.lr[2, 4] = math.nan
    refuse(bad, ValueError, r"lr\[2, 4\] is nan")
    refuse(case(), ValueError, r"hidden_dropout\[1\] is 1.0", hidden_dropout=[0.1, 1.0, 0.1])
    refuse(case(), ValueError, r"weight_decay must be a number or \(3,\)", weight_decay=[0.1])


def test_states_of_other_runs():
    case = problem()
    sgd, momentum, adamw = (
        OptimizerState.zeros(case.params, *kind) for kind in (("sgd",), ("sgd", 0.9), ("adamw",))
    )
    needs = "state must be that of {}, got that of {}$".format
    refuse(case, ValueError, needs("adamw", "sgd without momentum"), state=sgd, optimizer="adamw")
    refuse(case, ValueError, needs("adamw", "sgd with momentum"), state=momentum, optimizer="adamw")
    refuse(case, ValueError, needs("sgd without momentum", "adamw"), state=adamw)
    refuse(case, ValueError, needs("sgd with momentum", "adamw"), state=adamw, momentum=0.9)
    refuse(case, ValueError, needs("sgd with momentum", "sgd wi.*"), state=sgd, momentum=0.9)
    other = OptimizerState.zeros(problem(hidden=(17,)).params, "sgd", 0.9)
    message = r"state.first.hidden.0.weight must be \(16, 12\) float32 on cpu .*\(17, 12\) float32$"
    refuse(case, ValueError, message, state=other, momentum=0.9)
    double = OptimizerState.zeros(problem(dtype=torch.float64).params, "sgd", 0.9)
    refuse(case, ValueError, "state.first.embedding must be .* float64", state=double, momentum=0.9)
    several = OptimizerState.zeros(problem(M=2).params)
    refuse(case, ValueError, r"state.stopped must be \(1,\) int64 .* got \(2,\)", state=several)
    sgd.step = -1
    refuse(case, ValueError, "state.step must be an int >= 0, got -1", state=sgd)


def test_parameters_that_share_memory():
    case = problem(V=16, hidden=(16,), D=16)
    case.params.output = (case.params.embedding, case.params.output[1])
    refuse(case, ValueError, "embedding and output.weight must not share memory")
    case = problem(M=3)
    case.params.embedding = case.params.embedding[:1].expand(3, -1, -1)
    message = re.escape("parameters and state must not hold one element twice, got a tensor (3, 11")
    refuse(case, ValueError, message)
    case = problem()
    state = OptimizerState(0, torch.full((1,), -1), case.params, None)
    shared = "embedding and state.first.embedding must not share memory"
    refuse(case, ValueError, shared, state=state, momentum=0.9)


def test_parameters_without_ordinary_memory():
    case = problem()
    with pytest.raises(TypeError, match=r"^train_steps: params must be a mlpkern.MLPParams, got l"):
        mlpkern.train_steps([], case.inputs, case.targets, case.batches, 0.1)
    case.params.embedding = case.params.embedding._neg_view()
    refuse(case, TypeError, "embedding must not be lazily negated")
    meta = case.params.map(lambda tensor: tensor.to("meta"))
    data = [tensor.to("meta") for tensor in (case.inputs, case.targets, case.batches)]
    with pytest.raises(TypeError, match=r"^train_steps: embedding must have values, got a meta t"):
        mlpkern.train_steps(meta, *data, 0.1)


def test_parameters_changed_to_something_else():
    case = problem()
    case.params.hidden[0] = (case.params.hidden[0][0], torch.zeros(17))
    refuse(case, ValueError, r"hidden.0.bias must be \(16,\) to match .* got \(17,\)$")


def test_transforms_of_functions():
    case = problem()

    def loss(embedding: torch.Tensor) -> torch.Tensor:
        params = MLPParams(embedding, case.params.hidden, case.params.output)
        return mlpkern.train_steps(params, case.inputs, case.targets, case.batches, 0.1).sum()

    with pytest.raises(RuntimeError, match=r"cannot run under a transform of torch\.func"):
        torch.func.grad(loss)(case.params.embedding)


def test_a_backend_without_the_op(monkeypatch):
    from mlpkern import cpu

    if not mlpkern.backends()["cpu"].available:
        pytest.skip(mlpkern.backends()["cpu"].reason)
    monkeypatch.delattr(cpu, "train_steps", raising=False)
    monkeypatch.setattr(sys.modules["mlpkern.registry"], "_chosen", {})
    case = problem(S=2)
    data = (case.params, case.inputs, case.targets, case.batches, 0.1)
    explanation = mlpkern.explain("train_steps", *data)
    assert explanation.startswith("train_steps runs on reference: ")
    assert "passed over: cpu (it has no train_steps)" in explanation
    assert case.run()[0].isfinite().all()
    with mlpkern.use_backend("cpu"), pytest.raises(RuntimeError, match="cpu has no train_steps"):
        case.run()
