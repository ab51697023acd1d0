"""``cross_entropy`` against ``F.cross_entropy``: values, gradients, properties.

Edge cases are in ``test_cross_entropy_edges.py``, errors in ``test_cross_entropy_errors.py``.
"""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from support.op_problems import REDUCTIONS, probabilities
from support.op_problems import loss_problem as problem
from support.op_problems import stock_loss as stock
from support.tolerance import FLOATS, INTEGERS, compare
from torch.autograd import gradcheck, gradgradcheck

from mlpkern import cross_entropy

# (N, C): one of everything; the lecture's C = 27; 16 lanes and multiples of them, one fewer,
# exactly, one more; primes; a vocabulary too large for uint8; one row of many classes; many rows of
# few.
SIZES = [(1, 1), (32, 27), (5, 2), (17, 15), (33, 16), (31, 17), (7, 33), (13, 1009), (1, 4099)]
SIZES += [(4099, 27), (2053, 2)]

# Equals torch


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equals_torch(backend, device, size, dtype):
    logits, target = problem(size, device, dtype)
    for reduction in REDUCTIONS:
        compare(
            lambda x, t, r=reduction: cross_entropy(x, t, reduction=r),
            lambda x, t, r=reduction: stock(x, t, reduction=r),
            (logits, target),
        )


KINDS = ["ids", "probabilities"]
OPTIONS = list(itertools.product(REDUCTIONS, [0.0, 0.1, 1.0], [False, True], KINDS))


@pytest.mark.parametrize(("reduction", "smoothing", "weighted", "kind"), OPTIONS)
def test_every_option_together(backend, device, reduction, smoothing, weighted, kind):
    logits, target = problem((67, 19), device)
    weight = torch.rand(19, device=device) if weighted else None
    if weighted:
        weight[[0, 7]] = 0.0
    if kind == "ids":
        target[::5] = -100
    else:
        target = probabilities(logits)
    options = {"reduction": reduction, "label_smoothing": smoothing}
    compare(
        lambda x, t: cross_entropy(x, t, weight, **options),
        lambda x, t: stock(x, t, None if weight is None else weight.to(x.dtype), **options),
        (logits, target),
    )


# A kernel reads long rows in blocks of 4,096. Here: one class more than a block, with rows that
# begin at every offset within a vector; three blocks of which the last has one class.
@pytest.mark.parametrize("size", [(3, 4097), (2, 8200), (3, 8193)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_long_rows(backend, device, size, dtype, kind):
    logits, target = problem(size, device, dtype)
    logits[0] = -torch.inf  # a row that begins with less than a kernel can add up
    logits[0, -2:] = 1.0
    target[:2] = torch.tensor([size[1] - 1, -100])
    goal = target if kind == "ids" else probabilities(logits)
    weight = torch.rand(size[1], device=device).to(dtype)
    for smoothing in (0.0, 0.1):
        compare(
            lambda x, t, e=smoothing: cross_entropy(x, t, weight.to(x.dtype), label_smoothing=e),
            lambda x, t, e=smoothing: stock(x, t, weight.to(x.dtype), label_smoothing=e),
            (logits, goal),
        )
    compare(cross_entropy, stock, (logits.t().contiguous().t(), goal))


@pytest.mark.parametrize("target_dtype", INTEGERS, ids=str)
def test_every_integer_dtype(backend, device, target_dtype):
    logits, target = problem((301, 256), device)
    target[0] = 255  # no negative number in uint8
    target[1::7] = 3
    for ignored in (3, -100):
        compare(
            lambda x, t, i=ignored: cross_entropy(x, t, ignore_index=i),
            lambda x, t, i=ignored: stock(x, t, ignore_index=i),
            (logits, target.to(target_dtype)),
        )


@pytest.mark.parametrize("ignored", [-100, -1, 0, 5, 18, 19, 10**12])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ignore_index(backend, device, ignored, reduction):
    logits, target = problem((41, 19), device)
    target[::3] = ignored
    for smoothing in (0.0, 0.2):
        options = {"ignore_index": ignored, "reduction": reduction, "label_smoothing": smoothing}
        compare(
            lambda x, t, o=options: cross_entropy(x, t, **o),
            lambda x, t, o=options: stock(x, t, **o),
            (logits, target),
        )


def test_ignore_index_outside_the_dtype_of_the_target(backend, device):
    logits = torch.randn(4, 200, device=device)
    target = torch.tensor([156, 1, 2, 3], dtype=torch.uint8, device=device)
    # -100 as uint8 is 156, which must not make class 156 an ignored one.
    torch.testing.assert_close(cross_entropy(logits, target), stock(logits, target))


@pytest.mark.parametrize("size", [(5, 7, 3), (2, 11, 4, 3), (3, 5, 1, 2, 2), (4, 6, 0)], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_more_dimensions(backend, device, size, reduction):
    logits, target = problem(size, device)
    weight = torch.rand(size[1], device=device)
    target.view(-1)[:2] = -100
    for goal in (target, probabilities(logits)):
        compare(
            lambda x, t: cross_entropy(x, t, weight, reduction=reduction),
            lambda x, t: stock(x, t, weight.to(x.dtype), reduction=reduction),
            (logits, goal),
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_row_without_a_batch(backend, device, reduction):
    logits = torch.randn(333, device=device)
    for goal in (torch.tensor(7, device=device), logits.softmax(0)):
        compare(
            lambda x, t: cross_entropy(x, t, reduction=reduction),
            lambda x, t: stock(x, t, reduction=reduction),
            (logits, goal),
        )


def test_probabilities_of_another_dtype(backend, device):
    logits = torch.randn(9, 5, dtype=torch.bfloat16, device=device)
    target = torch.rand(9, 5, device=device)
    loss = cross_entropy(logits, target)
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss, stock(logits.float(), target))


# Gradients


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(backend, device, reduction, smoothing, weighted, kind):
    logits, target = problem((4, 3), device, torch.float64)
    weight = torch.rand(3, dtype=torch.float64, device=device) if weighted else None
    logits.requires_grad_()
    if kind == "ids":
        target[1] = -100
    else:
        target = torch.rand(4, 3, dtype=torch.float64, device=device, requires_grad=True)

    def function(x, t):
        return cross_entropy(x, t, weight, reduction=reduction, label_smoothing=smoothing)

    assert gradcheck(function, (logits, target), check_batched_grad=True)
    assert gradgradcheck(function, (logits, target))


def test_gradient_of_the_class_weights(backend, device):
    logits, target = problem((6, 4), device, torch.float64)
    logits.requires_grad_()
    weight = torch.rand(4, dtype=torch.float64, device=device, requires_grad=True)
    assert gradcheck(lambda x, w: cross_entropy(x, target, w), (logits, weight))


def test_only_the_target_requires_a_gradient(backend, device):
    logits, _ = problem((8, 5), device)
    compare(cross_entropy, stock, (logits, probabilities(logits)), needs=(False, True))


def test_a_gradient_penalty_reaches_the_logits(backend, device):
    logits, target = problem((6, 5), device, torch.float64)

    def penalty(function):
        x = logits.clone().requires_grad_()
        (g,) = torch.autograd.grad(function(x, target), x, create_graph=True)
        return torch.autograd.grad(g.pow(2).sum(), x)[0]

    torch.testing.assert_close(penalty(cross_entropy), penalty(stock))


# Properties


def test_gradient_is_softmax_minus_target(backend, device):
    logits, target = problem((23, 29), device)
    logits.requires_grad_()
    cross_entropy(logits, target, reduction="sum").backward()
    expected = logits.detach().softmax(1) - F.one_hot(target, 29)
    torch.testing.assert_close(logits.grad, expected)
    assert logits.grad.sum(1).abs().max() < 1e-5


@pytest.mark.parametrize("offset", [-1e4, -200.0, 128.0, 3e4])
def test_shifting_a_row_changes_nothing(backend, device, offset):
    logits, target = problem((12, 27), device)
    logits = (logits * 64).round() / 64  # so that adding the offset is exact in float32
    results = []
    for x in (logits, logits + offset):
        x = x.clone().requires_grad_()
        loss = cross_entropy(x, target, reduction="none")
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), x)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_permuting_the_classes_permutes_the_gradient(backend, device):
    logits, target = problem((9, 37), device)
    order = torch.randperm(37, device=device)
    place = torch.empty_like(order).scatter_(0, order, torch.arange(37, device=device))
    a, b = logits.clone().requires_grad_(), logits[:, order].requires_grad_()
    for x, t in ((a, target), (b, place[target])):
        cross_entropy(x, t).backward()
    torch.testing.assert_close(b.grad, a.grad[:, order])


def test_same_bits_every_time(backend, device):
    logits, target = problem((4099, 27), device)
    logits.requires_grad_()
    first, second = (cross_entropy(logits, target) for _ in range(2))
    assert torch.equal(first, second)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (first, second)]
    assert torch.equal(*grads)
