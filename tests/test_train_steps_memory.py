"""Where the tensors of ``train_steps`` lie, and that it writes there and nowhere else."""

from __future__ import annotations

import pytest
import torch
from tolerance import INTEGERS
from train_problems import Problem, problem

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
    """The same values with other strides: dimensions reversed in memory, and gaps."""
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
    buffer = torch.cat([tensor.flatten(1) for tensor in tensors], 1)  # (M, all of a model)
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
