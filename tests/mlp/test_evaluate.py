"""``evaluate``: mean loss and accuracy over a split, equal to stock torch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from support.tolerance import INTEGERS, assert_as_good_as_torch
from support.train_problems import FLOATS, SHAPES, module, problem

import mlpkern
from mlpkern import MLPParams, evaluate


def stock(params: MLPParams, inputs, targets) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from layers of torch.nn, one model after another."""
    count = params.models
    losses, shares = [], []
    for m in range(count or 1):
        model = module(params if count is None else params.model(m))
        with torch.no_grad():
            logits = model(inputs.long())
        losses.append(F.cross_entropy(logits, targets.long()))
        shares.append((logits.argmax(1) == targets).to(params.dtype).mean())
    if count is None:
        return losses[0], shares[0]
    return torch.stack(losses), torch.stack(shares)


def check(params: MLPParams, inputs, targets) -> None:
    """The loss is as close to float64 as torch's; the accuracy equals that in float64."""
    ours, theirs = evaluate(params, inputs, targets), stock(params, inputs, targets)
    exact = stock(params.map(torch.Tensor.double), inputs, targets)
    assert_as_good_as_torch(ours.loss, theirs[0], exact[0])
    assert ours.accuracy.dtype == params.dtype
    torch.testing.assert_close(ours.accuracy.double(), exact[1], rtol=1e-6, atol=0)


# Rows: one; one fewer and one more than a block of 16 or 64; more than the reference's blocks for
# many classes.
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [1, 15, 64, 65, 1009, 20_011])
def test_rows(backend, device, rows, dtype):
    case = problem(V=27, D=10, hidden=(50,), rows=rows, dtype=dtype, device=device)
    check(case.params, case.inputs, case.targets)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(backend, device, name, dtype):
    case = problem(**(SHAPES[name] | {"rows": 333}), dtype=dtype, device=device)
    check(case.params, case.inputs, case.targets)


def test_many_classes(backend, device):
    case = problem(V=5003, D=8, hidden=(33,), rows=700, device=device)
    check(case.params, case.inputs, case.targets)


@pytest.mark.parametrize("models", [1, 4])
def test_models(backend, device, models):
    case = problem(M=models, hidden=(16, 9), rows=2000, device=device)
    check(case.params, case.inputs, case.targets)
    together = evaluate(case.params, case.inputs, case.targets)
    for m in range(models):
        alone = evaluate(case.params.model(m), case.inputs, case.targets)
        assert torch.equal(together.loss[m], alone.loss)
        assert torch.equal(together.accuracy[m], alone.accuracy)


def test_the_loss_of_uniform_logits_is_the_logarithm_of_the_classes(backend, device):
    case = problem(V=27, rows=500, device=device)
    for tensor in case.params.output:
        tensor.zero_()
    result = evaluate(case.params, case.inputs, case.targets)
    assert result.loss.item() == pytest.approx(math.log(27), rel=1e-6)
    # of equal logits the first counts as the largest
    assert result.accuracy.item() == pytest.approx((case.targets == 0).double().mean().item())


def test_order_of_rows_and_copies_of_rows_do_not_matter(backend, device):
    case = problem(rows=501, device=device)
    one = evaluate(case.params, case.inputs, case.targets)
    order = torch.randperm(501, device=device)
    other = evaluate(case.params, case.inputs[order], case.targets[order])
    twice = evaluate(case.params, case.inputs.repeat(2, 1), case.targets.repeat(2))
    for changed in (other, twice):
        torch.testing.assert_close(changed.loss, one.loss, rtol=1e-6, atol=0)
        torch.testing.assert_close(changed.accuracy, one.accuracy, rtol=1e-6, atol=0)


def test_large_logits_do_not_overflow(backend, device):
    case = problem(rows=40, device=device)
    case.params.output[0].mul_(1e4)
    case.params.output[1].fill_(3e4)
    check(case.params, case.inputs, case.targets)


def test_values_that_are_no_numbers(backend, device):
    case = problem(M=2, rows=40, device=device)
    case.params.output[1][0, 2] = math.nan
    result = evaluate(case.params, case.inputs, case.targets)
    assert result.loss.isfinite().tolist() == [False, True]


def test_no_rows(backend, device):
    case = problem(M=2, device=device)
    result = evaluate(case.params, case.inputs[:0], case.targets[:0])
    assert result.loss.isnan().tolist() == [True, True]
    assert result.accuracy.isnan().tolist() == [True, True]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_dtypes(backend, device, dtype):
    case = problem(device=device)
    expected = evaluate(case.params, case.inputs, case.targets)
    result = evaluate(case.params, case.inputs.to(dtype), case.targets)
    assert torch.equal(result.loss, expected.loss)
    result = evaluate(case.params, case.inputs, case.targets.to(dtype))
    assert torch.equal(result.loss, expected.loss)


def test_strides(backend, device):
    case = problem(M=2, hidden=(16, 5), device=device)
    expected = evaluate(case.params, case.inputs, case.targets)
    params = case.params.map(lambda t: t.transpose(0, -1).contiguous().transpose(0, -1))
    inputs = case.inputs.T.contiguous().T
    targets = case.targets.repeat_interleave(3)[::3]
    result = evaluate(params, inputs, targets)
    assert torch.equal(result.loss, expected.loss)
    assert torch.equal(result.accuracy, expected.accuracy)


def test_nothing_is_touched_and_no_graph_is_made(backend, device):
    case = problem(device=device)
    for tensor in case.params.tensors():
        tensor.requires_grad_()
    kept = case.params.clone()
    result = evaluate(case.params, case.inputs, case.targets)
    assert not result.loss.requires_grad
    for one, other in zip(case.params.tensors(), kept.tensors(), strict=True):
        assert one._version == 0
        assert torch.equal(one, other)


@pytest.mark.parametrize("models", [None, 2])
def test_ids_out_of_range(backend, device, models):
    case = problem(V=27, C=30, M=models, device=device)
    case.inputs[3, 1] = 27
    with pytest.raises(
        IndexError, match=r"^evaluate: inputs\[3, 1\] is 27, expected 0 <= id < 27$"
    ):
        evaluate(case.params, case.inputs, case.targets)
    case.inputs[3, 1] = 0
    case.targets[5] = -1
    message = r"^evaluate: targets\[5\] is -1, expected 0 <= target < 30$"
    with pytest.raises(IndexError, match=message):
        evaluate(case.params, case.inputs, case.targets)


def test_bad_arguments():
    case = problem()
    params, inputs, targets = case.params, case.inputs, case.targets
    for arguments, error, message in (
        ((params.tensors(), inputs, targets), TypeError, "params must be a mlpkern.MLPParams"),
        ((params, inputs.float(), targets), TypeError, "inputs must be uint8, .* got float32"),
        ((params, inputs[:, 1:], targets), ValueError, r"inputs must be \(rows, 3\) .* \(60, 2\)"),
        ((params, inputs, targets[1:]), ValueError, r"targets must be \(60,\) .* got \(59,\)"),
        ((params, inputs, targets.to("meta")), ValueError, "targets must be on cpu like params"),
    ):
        with pytest.raises(error, match=f"^evaluate: {message}"):
            evaluate(*arguments)


def test_explain():
    case = problem()
    for op, data in (
        ("evaluate", (case.params, case.inputs, case.targets)),
        ("train_steps", (case.params, case.inputs, case.targets, case.batches, 0.1)),
    ):
        with mlpkern.use_backend("reference"):
            said = mlpkern.explain(op, *data)
        assert said == f"{op} runs on reference: named by use_backend."
        name = "cpu" if mlpkern.backends()["cpu"].available else "reference"
        assert mlpkern.explain(op, *data).startswith(f"{op} runs on {name}: the tensors are on cpu")
