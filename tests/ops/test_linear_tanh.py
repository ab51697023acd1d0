"""``linear_tanh`` against ``torch.tanh(F.linear(...))``."""

from __future__ import annotations

import itertools

import pytest
import torch
from support.op_problems import stock_linear_tanh as stock
from support.tolerance import FLOATS, compare
from torch.autograd import gradcheck, gradgradcheck

import mlpkern
from mlpkern import linear_tanh

# (N, K, H): one of everything; the lecture's 32 x 30 -> 200; 16 lanes and multiples of them, one
# fewer, exactly, one more; primes; more rows than a block and more columns than a panel; wider than
# the fused kernels of a GPU.
SIZES = [
    (1, 1, 1),
    (32, 30, 200),
    (15, 17, 16),
    (16, 16, 16),
    (17, 15, 17),
    (33, 31, 33),
    (7, 101, 27),
    (2, 3, 257),
    (64, 256, 31),
    (1031, 10, 65),
    (130, 1027, 21),
]


def problem(size, device, dtype=torch.float32):
    n, k, h = size
    tensors = torch.randn(n, k), torch.randn(h, k) / k**0.5, torch.randn(h)
    return tuple(tensor.to(device, dtype) for tensor in tensors)


# Equals torch


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equals_torch(backend, device, size, dtype):
    x, w, b = problem(size, device, dtype)
    compare(linear_tanh, stock, (x, w, b))
    compare(linear_tanh, stock, (x, w))


@pytest.mark.parametrize("shape", [(30,), (1, 30), (2, 3, 30), (2, 1, 5, 30)], ids=str)
def test_leading_dimensions(backend, device, shape):
    _, w, b = problem((1, 30, 20), device)
    x = torch.randn(shape, device=device)
    grad = torch.randn(*shape[:-1], 20, device=device)
    results = []
    for function in (linear_tanh, stock):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, w, b)]
        output = function(*leaves)
        results.append((output.detach(), *torch.autograd.grad(output, leaves, grad)))
    torch.testing.assert_close(*results)


def test_saturated_and_tiny_values(backend, device):
    z = torch.tensor([-1e4, -90.0, -20.0, -9.1, -1e-3, -1e-8, -1e-30, 0.0], device=device)
    x = torch.cat([z, -z])[:, None]  # (16, 1)
    x[7], w = -0.0, torch.ones(1, 1, device=device)
    compare(linear_tanh, stock, (x, w))
    y = linear_tanh(x, w)
    assert y.abs().max() == 1.0  # never beyond one
    small = x[x.abs() < 1e-6]
    assert torch.equal(y[x.abs() < 1e-6], small)  # tanh(z) = z to the last bit, down to 1e-30


# Gradients


@pytest.mark.parametrize("needs", [n for n in itertools.product([True, False], repeat=3) if any(n)])
def test_only_the_gradients_that_are_needed(backend, device, needs):
    tensors = problem((21, 13, 19), device)
    compare(linear_tanh, stock, tensors, needs)
    leaves = [t.clone().requires_grad_(need) for t, need in zip(tensors, needs, strict=True)]
    linear_tanh(*leaves).sum().backward()
    assert [leaf.grad is not None for leaf in leaves] == list(needs)


@pytest.mark.parametrize("shape", [(3, 4), (4,), (2, 3, 4)], ids=str)
def test_gradcheck(backend, device, shape):
    options = {"dtype": torch.float64, "device": device, "requires_grad": True}
    x, w, b = (torch.randn(s, **options) for s in (shape, (5, 4), (5,)))
    assert gradcheck(linear_tanh, (x, w, b), check_batched_grad=True)
    assert gradgradcheck(linear_tanh, (x, w, b))
    assert gradgradcheck(linear_tanh, (x.detach(), w))


def test_a_gradient_penalty_reaches_the_parameters(backend, device):
    tensors = problem((9, 6, 8), device, torch.float64)

    def gradients(function):
        x, w, b = (tensor.clone().requires_grad_() for tensor in tensors)
        (g,) = torch.autograd.grad(function(x, w, b).pow(2).sum(), x, create_graph=True)
        return torch.autograd.grad(g.pow(2).sum(), (x, w, b))

    torch.testing.assert_close(gradients(linear_tanh), gradients(stock))


# Properties


def test_odd_function(backend, device):
    x, w, b = problem((37, 11, 23), device)
    assert torch.equal(linear_tanh(-x, w, -b), -linear_tanh(x, w, b))


def test_rows_do_not_depend_on_their_neighbors(backend, device):
    x, w, b = problem((65, 30, 40), device)
    whole = linear_tanh(x, w, b)
    order = torch.randperm(65, device=device)
    torch.testing.assert_close(linear_tanh(x[order], w, b), whole[order])
    torch.testing.assert_close(linear_tanh(x[64], w, b), whole[64])


def test_same_bits_every_time(backend, device):
    x, w, b = (t.requires_grad_() for t in problem((2050, 30, 70), device))
    grad = torch.randn(2050, 70, device=device)
    runs = [torch.autograd.grad(linear_tanh(x, w, b), (x, w, b), grad) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


def test_nan_and_infinity_stay_in_their_row(backend, device):
    x, w, b = problem((20, 18, 34), device)
    x[3, 5], x[7, 0] = torch.nan, torch.inf
    y = linear_tanh(x, w, b)
    assert y[3].isnan().all()
    assert torch.equal(y[7], w[:, 0].sign())
    rest = torch.ones(20, dtype=torch.bool, device=device)
    rest[[3, 7]] = False
    assert y[rest].isfinite().all()


# Edges


@pytest.mark.parametrize(
    ("shape", "h"), [((0, 30), 20), ((4, 0), 20), ((4, 30), 0), ((2, 0, 30), 5), ((0, 0), 0)]
)
def test_empty(backend, device, shape, h):
    x, w, b = (
        torch.randn(s, device=device, requires_grad=True) for s in (shape, (h, shape[-1]), (h,))
    )
    y, expected = linear_tanh(x, w, b), stock(x, w, b)
    torch.testing.assert_close(y, expected)
    ours, theirs = (torch.autograd.grad(out.sum(), (x, w, b)) for out in (y, expected))
    torch.testing.assert_close(ours, theirs)


def test_strides(backend, device):
    x = torch.randn(2, 60, 33, device=device)[:, ::2].mT  # (2, 33, 30), rows 1 apart
    w = torch.randn(60, 17, device=device)[::2].t()  # (17, 30)
    b = torch.randn(51, device=device)[::3]
    assert not any(tensor.is_contiguous() for tensor in (x, w, b))
    compare(linear_tanh, stock, (x, w, b))
    compare(linear_tanh, stock, (x[:, :1].expand(2, 9, 30), w[:1].expand(17, 30), b[:1].expand(17)))
    misaligned = torch.randn(33 * 30 + 1, device=device)[1:].view(33, 30)
    compare(linear_tanh, stock, (misaligned, misaligned[:7], b[1:8]))


def test_gradient_with_strides(backend, device):
    tensors = problem((12, 7, 18), device)
    wide = torch.randn(18, 24, device=device)
    one = torch.randn((), device=device)
    for grad in (one.expand(12, 18), wide[:, ::2].t(), wide[:, :1].t().expand(12, 18)):
        got = []
        for function in (linear_tanh, stock):
            leaves = [tensor.clone().requires_grad_() for tensor in tensors]
            got.append(torch.autograd.grad(function(*leaves), leaves, grad))
        torch.testing.assert_close(*got)


def test_negated_views(backend, device):
    x, w, b = problem((6, 5, 4), device)
    torch.testing.assert_close(linear_tanh(x._neg_view(), w, b), stock(-x, w, b))
    w.requires_grad_()
    for function in (lambda *a: linear_tanh(*a), mlpkern.autograd.LinearTanh.apply):
        y = function(x._neg_view(), w._neg_view(), b._neg_view())
        torch.testing.assert_close(y, stock(-x, -w, -b))
        grad = torch.randn(6, 4, device=device)
        (got,) = torch.autograd.grad(y, w, grad._neg_view())
        (expected,) = torch.autograd.grad(stock(-x, -w, -b), w, -grad)
        torch.testing.assert_close(got, expected)


def test_citizenship(backend, device):
    x, w, b = problem((6, 5, 4), device)
    before = [tensor.clone() for tensor in (x, w, b)]
    assert not linear_tanh(x, w, b).requires_grad
    w.requires_grad_()
    y = linear_tanh(x, w, b)
    kept = y.detach().clone()
    first = torch.autograd.grad(y.sum(), w, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(y.sum(), w, retain_graph=True)[0])
    y.sum().backward()
    assert torch.equal(first, w.grad)
    for tensor, old in zip((x, w, b, y), (*before, kept), strict=True):
        assert torch.equal(tensor, old)
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    for spoil in (lambda y: y.detach().mul_(2), lambda y: w.detach().add_(1)):
        y = linear_tanh(x, w, b)
        spoil(y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_an_unused_output_costs_no_backward(backend, device):
    x, w, b = (t.requires_grad_() for t in problem((6, 5, 4), device))
    y = mlpkern.autograd.LinearTanh.apply(x, w, b)
    assert torch.autograd.grad(x.sum() + 0 * y.detach().sum(), w, allow_unused=True) == (None,)


# Errors

X, W, B = torch.randn(32, 30), torch.randn(200, 30), torch.randn(200)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.tolist(), W, B), TypeError, "input must be a torch.Tensor, got list"),
        ((X, None, B), TypeError, "weight must be a torch.Tensor, got NoneType"),
        ((X, W, 1.0), TypeError, "bias must be a torch.Tensor, got float"),
        ((X.int(), W, B), TypeError, "input must be float32, float64, .*, got int32"),
        ((X, W.double(), B), TypeError, "weight must be float32 like input, got float64"),
        ((X, W, B.half()), TypeError, "bias must be float32 like input, got float16"),
        ((X.cfloat(), W.cfloat(), None), TypeError, "input must be float32, .*, got complex64"),
        (
            (X, W[:, :20], B),
            ValueError,
            r"weight must be \(H, 30\) to match input \(32, 30\), got \(200, 20\)$",
        ),
        ((X, W[0], None), ValueError, r"weight must be \(H, 30\) .* got \(30,\)$"),
        ((X, W, B[1:]), ValueError, r"bias must be \(200,\) .* \(200, 30\), got \(199,\)$"),
        ((X, W, B[:, None]), ValueError, r"bias must be \(200,\) .* got \(200, 1\)$"),
        ((X[0, 0], W, B), ValueError, "input must be .* without dimensions"),
        ((X, W.to("meta"), B), ValueError, "weight must be on cpu like input, got meta"),
        ((X, W, B.to("meta")), ValueError, "bias must be on cpu like input, got meta"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^linear_tanh: {message}"):
        linear_tanh(*arguments)
