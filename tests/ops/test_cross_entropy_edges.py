"""Edge cases of ``cross_entropy``: extreme and missing values, empty batches, strides, autograd."""

from __future__ import annotations

import pytest
import torch
from support.op_problems import REDUCTIONS
from support.op_problems import loss_problem as problem
from support.op_problems import stock_loss as stock
from support.tolerance import compare

from mlpkern import cross_entropy


def test_rows_far_below_and_far_above(backend, device):
    logits, target = problem((11, 27), device)
    for shift in (-500.0, -1e30, 1e30):  # a maximum that starts at 0 would give log(0)
        compare(cross_entropy, stock, (logits + shift, target))
    confident = torch.full((3, 27), -40.0, device=device)
    confident[:, 4] = 40.0
    compare(cross_entropy, stock, (confident, torch.tensor([4, 4, 5], device=device)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_dtype_with_a_confident_class(backend, device, dtype):
    logits, _ = problem((50, 27), device, dtype)
    logits[:, 3] = 14.0
    target = torch.full((50,), 3, device=device)
    compare(
        lambda x, t: cross_entropy(x, t, reduction="none"),
        lambda x, t: stock(x, t, reduction="none"),
        (logits, target),
    )
    loss = cross_entropy(logits, target, reduction="none")
    exact = stock(logits.double(), target, reduction="none")
    torch.testing.assert_close(loss.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_masked_logits(backend, device):
    logits, target = problem((6, 9), device)
    logits[:, 4] = -torch.inf
    target[target == 4] = 5
    compare(cross_entropy, stock, (logits, target))
    target[2] = 4
    assert cross_entropy(logits, target).item() == torch.inf
    logits[3] = -torch.inf
    losses = cross_entropy(logits, target, reduction="none")
    assert losses.isnan().tolist() == stock(logits, target, reduction="none").isnan().tolist()


def test_nan_stays_in_its_row(backend, device):
    logits, target = problem((10, 27), device)
    logits[3, 8] = torch.nan
    logits.requires_grad_()
    losses = cross_entropy(logits, target, reduction="none")
    losses.sum().backward()
    assert losses.isnan().nonzero().flatten().tolist() == [3]
    assert logits.grad.isnan().any(1).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_ignored_row_may_hold_anything(backend, device, smoothing):
    logits, target = problem((10, 27), device)
    logits[3], logits[5] = torch.nan, torch.inf
    target[[3, 5]] = -100
    kept = [0, 1, 2, 4, 6, 7, 8, 9]
    x = logits.clone().requires_grad_()
    loss = cross_entropy(x, target, label_smoothing=smoothing)
    expected = cross_entropy(logits[kept], target[kept], label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.equal(gradient[[3, 5]], torch.zeros(2, 27, device=device))
    again = torch.func.grad(lambda x: cross_entropy(x, target, label_smoothing=smoothing))(logits)
    torch.testing.assert_close(again, gradient)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_all_ignored(backend, device, reduction, smoothing):
    logits, target = problem((4, 5), device)
    target[:] = -100
    options = {"reduction": reduction, "label_smoothing": smoothing}
    loss, expected = (f(logits, target, **options) for f in (cross_entropy, stock))
    torch.testing.assert_close(loss, expected, equal_nan=True)  # nan for the mean, as in torch
    if reduction != "mean":
        logits.requires_grad_()
        cross_entropy(logits, target, **options).sum().backward()
        assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_empty_batch(backend, device, reduction):
    logits = torch.empty(0, 27, device=device, requires_grad=True)
    for target in (torch.empty(0, dtype=torch.int32, device=device), torch.empty_like(logits)):
        loss = cross_entropy(logits, target, reduction=reduction)
        expected = stock(logits, target, reduction=reduction)
        torch.testing.assert_close(loss, expected, equal_nan=True)
        assert torch.autograd.grad(loss.sum(), logits)[0].shape == (0, 27)


def test_strides(backend, device):
    logits = torch.randn(54, 66, device=device)[::2, ::3].t()  # (22, 27), columns 2*66 apart
    target = torch.randint(0, 27, (66,), device=device)[::3]
    weight = torch.rand(54, device=device)[::2]
    compare(
        lambda x, t: cross_entropy(x, t, weight),
        lambda x, t: stock(x, t, weight.to(x.dtype)),
        (logits, target),
    )
    compare(cross_entropy, stock, (logits[:1].expand(22, 27), target[:1].expand(22)))
    compare(cross_entropy, stock, (logits[:, :1].expand(22, 27), target))
    misaligned = torch.randn(22 * 27 + 1, device=device)[1:].view(22, 27)
    compare(cross_entropy, stock, (misaligned, target))
    compare(cross_entropy, stock, (misaligned[:, 1:], target.clamp(max=25)))


def test_gradient_with_strides(backend, device):
    logits, target = problem((12, 7), device)
    one = torch.randn((), device=device)
    for grad in (one.expand(12), torch.randn(24, device=device)[::2]):
        got = []
        for function in (cross_entropy, stock):
            x = logits.clone().requires_grad_()
            got.append(torch.autograd.grad(function(x, target, reduction="none"), x, grad)[0])
        torch.testing.assert_close(*got)
    x = logits.clone().requires_grad_()
    loss = cross_entropy(x, target)
    a, b = (torch.autograd.grad(loss, x, g, retain_graph=True)[0] for g in (one._neg_view(), -one))
    assert torch.equal(a, b)


def test_negated_views(backend, device):
    logits, target = problem((12, 7), device)
    torch.testing.assert_close(cross_entropy(logits._neg_view(), target), stock(-logits, target))
    weight = torch.rand(7, device=device)
    torch.testing.assert_close(
        cross_entropy(-logits, target, (-weight)._neg_view()), stock(-logits, target, weight)
    )


def test_citizenship(backend, device):
    logits, target = problem((12, 27), device)
    before = logits.clone(), target.clone()
    assert not cross_entropy(logits, target).requires_grad
    logits.requires_grad_()
    loss = cross_entropy(logits, target)
    grads = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*grads)
    second = cross_entropy(logits, target)  # a second loss of the same logits is the same
    assert torch.equal(loss, second)
    (loss + second).backward()
    assert torch.equal(logits.grad, grads[0] * 2)
    assert torch.equal(logits, before[0])
    assert torch.equal(target, before[1])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    loss = cross_entropy(logits, target)
    target.add_(1)  # of the logits: test_in_place_changes.py
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
