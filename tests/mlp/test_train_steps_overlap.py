"""``train_steps`` refuses outputs that share memory with another tensor of the call."""

from __future__ import annotations

import pytest
import torch
from support.train_problems import Problem, problem

import mlpkern
from mlpkern import MLPParams, OptimizerState

pytestmark = pytest.mark.usefixtures("one_thread")


def train(case: Problem, **options: object) -> torch.Tensor:
    data = (case.inputs, case.targets, case.batches, options.pop("lr", case.lr))
    return mlpkern.train_steps(case.params, *data, **options)


def refuse(case: Problem, one: str, other: str, **options: object) -> None:
    """The call raises an error that names both tensors, and changes nothing."""
    before = case.params.clone()
    with pytest.raises(ValueError, match=f"^train_steps: {one} and {other} must not share memory"):
        train(case, **options)
    for tensor, old in zip(case.params.tensors(), before.tensors(), strict=True):
        assert torch.equal(tensor, old)


def one_element_shared() -> Problem:
    """The first element of the output's bias is the last element of its weight."""
    case = problem()
    weight, bias = case.params.output
    memory = torch.cat([weight.flatten(), bias[1:]])
    n = weight.numel()
    case.params.output = (memory[:n].view(weight.shape), memory[n - 1 :])
    return case


def test_parameters_that_overlap_in_part():
    refuse(one_element_shared(), "output.weight", "output.bias")
    case = problem(V=16, D=4, hidden=(12,))
    rows = torch.randn(20, 12)  # 16 * 4 of the table and (12, 12) of a weight
    case.params.hidden = [(rows[:12], case.params.hidden[0][1])]
    case.params.embedding = rows.view(-1)[140:204].view(16, 4)
    refuse(case, "embedding", "hidden.0.weight")


def test_state_that_overlaps_in_part():
    case = problem(M=2)
    state = OptimizerState.zeros(case.params, momentum=0.9)
    n = case.params.embedding.numel()
    memory = torch.zeros(2 * n - 1)
    case.params.embedding = memory[:n].view_as(case.params.embedding)
    state.first.embedding = memory[n - 1 :].view_as(case.params.embedding)
    refuse(case, "embedding", "state.first.embedding", state=state, momentum=0.9)
    state = OptimizerState.zeros(case.params, "adamw")
    state.second.hidden = state.first.hidden
    refuse(
        case, "state.first.hidden.0.weight", "state.second.hidden.0.weight",
        state=state, optimizer="adamw",
    )  # fmt: skip


def test_what_is_read_overlaps_what_is_written():
    case = problem(D=10, dtype=torch.float64)
    memory = case.params.embedding.view(-1)
    refuse(case, "embedding", "lr", lr=memory[:30].abs_())
    refuse(case, "embedding", "weight_decay", weight_decay=memory[5])
    for name in ("inputs", "targets", "batches"):
        case = problem(dtype=torch.float64)
        ids = getattr(case, name)
        memory = torch.zeros(max(case.params.embedding.numel(), ids.numel()), dtype=torch.float64)
        case.params.embedding = memory[: case.params.embedding.numel()].view(11, 4)
        setattr(case, name, memory.view(torch.int64)[: ids.numel()].view(ids.shape))
        refuse(case, "embedding", name)


def test_a_trained_tensor_that_overlaps_a_frozen_one():
    case = one_element_shared()
    case.params.frozen = ["output.bias"]
    refuse(case, "output.weight", "output.bias")
    case.params.frozen = ["output.weight", "output.bias"]
    expected = Problem(case.params.clone(), case.inputs, case.targets, case.batches)
    assert torch.equal(train(case), train(expected))


def interleaved(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of equal leading size as columns of one matrix."""
    matrix = torch.cat([tensor.flatten(1) for tensor in tensors], 1)
    parts = matrix.split([tensor[0].numel() for tensor in tensors], 1)
    return [p.unflatten(1, t.shape[1:]) for p, t in zip(parts, tensors, strict=True)]


def test_interleaved_tensors_that_are_apart_train_as_ever():
    case = problem(M=3)
    expected, trained = case.run()
    # every model's parameters in a row of their own
    case.params = MLPParams.from_tensors(interleaved(case.params.tensors()))
    assert torch.equal(train(case), expected)
    # weights as column blocks of a matrix, biases as its columns, models innermost
    case = problem(V=16, hidden=(16,), D=4, C=16)
    expected, trained = case.run()
    columns = interleaved([t if t.dim() == 2 else t[:, None] for t in case.params.tensors()])
    case.params = MLPParams.from_tensors([c if c.shape[1] > 1 else c[:, 0] for c in columns])
    assert torch.equal(train(case), expected)
    for one, other in zip(case.params.tensors(), trained.tensors(), strict=True):
        assert torch.equal(one, other)
    # every other element of one memory, and the elements between
    case = problem()
    expected, _ = case.run(momentum=0.9)
    state = OptimizerState.zeros(case.params, momentum=0.9)
    both = torch.stack([case.params.embedding, state.first.embedding], -1)
    case.params.embedding, state.first.embedding = both.unbind(-1)
    assert torch.equal(train(case, state=state, momentum=0.9), expected)
    # parameters of M models with the models innermost
    case = problem(M=2)
    expected, _ = case.run()
    case.params = case.params.map(lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0))
    assert torch.equal(train(case), expected)


def test_columns_that_share_one_element_are_refused():
    case = problem(M=3)
    embedding, *rest = case.params.tensors()
    n, m = embedding[0].numel(), rest[0][0].numel()
    matrix = torch.randn(3, n + m - 1)
    table, weight = matrix[:, :n], matrix[:, n - 1 :]
    tensors = [table.unflatten(1, embedding.shape[1:]), weight.unflatten(1, rest[0].shape[1:])]
    case.params = MLPParams.from_tensors([*tensors, *rest[1:]])
    refuse(case, "embedding", "hidden.0.weight")
