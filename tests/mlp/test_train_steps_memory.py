"""Strides, buffers and dtypes of the tensors of ``train_steps``; it writes them in place."""

from __future__ import annotations

import pytest
import torch
from support.tolerance import INTEGERS
from support.train_problems import Problem, problem

import mlpkern
from mlpkern import MLPParams

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_dtypes(backend, device, dtype):
    case = problem(device=device)
    expected, _ = case.run()
    for name in ("inputs", "targets", "batches"):
        mixed = Problem(**vars(case))
        setattr(mixed, name, getattr(case, name).to(dtype))
        assert torch.equal(mixed.run()[0], expected), name


def spread(tensor: torch.Tensor) -> torch.Tensor:
    """The same values with other strides: reversed dimensions, and gaps between elements."""
    backwards = range(tensor.dim() - 1, -1, -1)
    memory = tensor.new_zeros([2 * tensor.shape[d] for d in backwards])
    view = memory.permute(*backwards)[tuple(slice(0, None, 2) for _ in backwards)]
    return view.copy_(tensor)


@pytest.mark.parametrize("models", [None, 2])
def test_strides(backend, device, models):
    case = problem(M=models, device=device, hidden=(16, 5))
    expected, trained = case.run(momentum=0.9)
    again = Problem(
        case.params.map(spread), spread(case.inputs), spread(case.targets), spread(case.batches),
        spread(torch.full((30,), 0.1, dtype=torch.float64)),
    )  # fmt: skip
    params = again.params
    state = mlpkern.OptimizerState.zeros(params, momentum=0.9)
    state.first = state.first.map(spread)
    losses = mlpkern.train_steps(
        params, again.inputs, again.targets, again.batches, again.lr, momentum=0.9, state=state
    )
    assert torch.equal(losses, expected)
    for one, other in zip(params.tensors(), trained.tensors(), strict=True):
        assert torch.equal(one, other)


def test_parameters_in_one_buffer(backend, device):
    case = problem(M=2, device=device)
    expected, trained = case.run()
    tensors = case.params.tensors()
    sizes = [tensor[0].numel() for tensor in tensors]
    buffer = torch.cat([tensor.flatten(1) for tensor in tensors], 1)  # (M, parameters of a model)
    parts = [
        part.unflatten(1, tensor.shape[1:])
        for part, tensor in zip(buffer.split(sizes, 1), tensors, strict=True)
    ]
    case.params = MLPParams.from_tensors(parts)
    losses = mlpkern.train_steps(case.params, case.inputs, case.targets, case.batches, 0.1)
    assert torch.equal(losses, expected)
    assert torch.equal(buffer, torch.cat([t.flatten(1) for t in trained.tensors()], 1))


def test_batches_shared_by_all_models_or_spelled_out(backend, device):
    case = problem(M=3, device=device)
    expected, _ = case.run()
    case.batches = case.batches.repeat(3, 1, 1)
    assert torch.equal(case.run()[0], expected)


def test_updates_happen_in_place_and_are_counted(backend, device):
    case = problem(device=device)
    model = torch.nn.Sequential(
        torch.nn.Embedding(11, 4),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 16),
        torch.nn.Tanh(),
        torch.nn.Linear(16, 11),
    ).to(device)
    own = list(model.parameters())
    before = [(p.data_ptr(), p._version, p.detach().clone()) for p in own]
    case.params = MLPParams.from_module(model)
    state = mlpkern.OptimizerState.zeros(case.params, "adamw")
    moments = [(t, t.data_ptr(), t._version) for t in state.tensors()]
    _, expected = case.run(optimizer="adamw")
    mlpkern.train_steps(
        case.params, case.inputs, case.targets, case.batches, 0.1, optimizer="adamw", state=state
    )
    for p, q, (place, version, value), want in zip(
        own, model.parameters(), before, expected.tensors(), strict=True
    ):
        assert q is p
        assert p.data_ptr() == place
        assert p._version > version
        assert p.requires_grad
        assert p.grad is None
        assert not torch.equal(p, value)
        assert torch.equal(p, want)
    for now, (tensor, place, version) in zip(state.tensors(), moments, strict=True):
        assert now is tensor
        assert tensor.data_ptr() == place
        assert tensor._version > version


def test_autograd_notices_the_update(backend, device):
    case = problem(device=device)
    for tensor in case.params.tensors():
        tensor.requires_grad_()
    loss = (case.params.output[0] ** 2).sum()
    mlpkern.train_steps(case.params, case.inputs, case.targets, case.batches, 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_arguments_are_left_alone(backend, device):
    case = problem(device=device, M=2)
    case.lr = torch.rand(2, 30, dtype=torch.float64, device=device)
    decay = torch.rand(2, dtype=torch.float64, device=device)
    kept = [t.clone() for t in (case.inputs, case.targets, case.batches, case.lr, decay)]
    case.run(weight_decay=decay, hidden_dropout=0.1)
    for tensor, copy in zip(
        (case.inputs, case.targets, case.batches, case.lr, decay), kept, strict=True
    ):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_modes(backend, device, mode):
    case = problem(device=device)
    expected, trained = case.run(momentum=0.9)
    with mode():
        losses, params = case.run(momentum=0.9)  # the parameters made in the mode
        params = case.params
        again = mlpkern.train_steps(params, case.inputs, case.targets, case.batches, 0.1, 0.9)
    assert torch.equal(losses, expected)
    assert torch.equal(again, expected)
    assert not losses.requires_grad
    for one, other in zip(params.tensors(), trained.tensors(), strict=True):
        assert torch.equal(one, other)


def test_autocast_changes_nothing(backend, device):
    case = problem(device=device)
    expected, _ = case.run()
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(case.run()[0], expected)


def test_the_memory_around_the_tensors_is_left_alone(backend, device):
    case = problem(device=device, hidden=(17, 3), V=5, D=3)
    expected, trained = case.run(optimizer="adamw", hidden_dropout=0.2)
    guarded = []
    for tensor in case.params.tensors():
        memory = torch.full((tensor.numel() + 64,), 7.0, device=device)
        memory[32:-32] = tensor.flatten()
        guarded.append(memory)
    views = [
        memory[32:-32].view(tensor.shape)
        for memory, tensor in zip(guarded, case.params.tensors(), strict=True)
    ]
    params = MLPParams.from_tensors(views)
    losses = mlpkern.train_steps(
        params, case.inputs, case.targets, case.batches, 0.1, optimizer="adamw", hidden_dropout=0.2
    )
    assert torch.equal(losses, expected)
    for memory, want in zip(guarded, trained.tensors(), strict=True):
        assert torch.equal(memory[32:-32], want.flatten())
        assert torch.equal(memory[:32], torch.full_like(memory[:32], 7.0))
        assert torch.equal(memory[-32:], torch.full_like(memory[-32:], 7.0))


def test_no_step_changes_nothing(backend, device):
    for models in (None, 3):
        case = problem(M=models, device=device, S=0)
        state = mlpkern.OptimizerState.zeros(case.params, momentum=0.9)
        state.step = 4
        losses, params = case.run(momentum=0.9, state=state)
        assert losses.shape == ((0,) if models is None else (3, 0))
        assert losses.dtype == torch.float32
        assert state.step == 4
        for one, other in zip(params.tensors(), case.params.tensors(), strict=True):
            assert torch.equal(one, other)
