"""``embedding_linear_tanh``: empty batches, strides, what autograd expects of an op, and errors."""

from __future__ import annotations

import pytest
import torch
from support.op_problems import pair_problem as problem
from support.op_problems import stock_pair as stock
from support.tolerance import SLACK, compare

import mlpkern
from mlpkern import embedding_linear_tanh

# Edges


@pytest.mark.parametrize("v", [300, 1501])
def test_gradient_of_the_bias_over_a_large_vocabulary(backend, device, v):
    """A fold sums it over the V rows of its tables, which one after another lose digits.

    The mean over five problems, since one sum of torch's may be exact by chance.
    """
    ratios = []
    for seed in range(5):
        torch.manual_seed(seed)
        ids, *tensors = problem(((4003, 2), v, 32, 101), device)
        grad = torch.randn(4003, 101, device=device)

        def of_bias(op, dtype, ids=ids, tensors=tensors, grad=grad):
            e, w, b = (tensor.detach().to(dtype) for tensor in tensors)
            output = op(ids, e, w, b.requires_grad_())
            return torch.autograd.grad(output, b, grad.to(dtype))[0].double()

        exact = of_bias(stock, torch.float64)
        errors = [
            (of_bias(op, torch.float32) - exact).abs().max().item()
            for op in (embedding_linear_tanh, stock)
        ]
        ratios.append(errors[0] / errors[1])
    assert sum(ratios) / len(ratios) <= SLACK, ratios


@pytest.mark.parametrize(
    ("shape", "v", "d", "h"),
    [
        ((0, 3), 27, 10, 20),
        ((4, 0), 27, 10, 20),
        ((2, 0, 3), 27, 10, 5),
        ((4, 3), 27, 0, 20),
        ((4, 3), 27, 10, 0),
        ((0, 3), 0, 10, 5),
        ((0,), 27, 10, 5),
    ],
)
def test_empty(backend, device, shape, v, d, h):
    ids = torch.zeros(shape, dtype=torch.int64, device=device)
    e, w, b = (
        torch.randn(s, device=device, requires_grad=True)
        for s in ((v, d), (h, shape[-1] * d), (h,))
    )
    y, expected = embedding_linear_tanh(ids, e, w, b), stock(ids, e, w, b)
    torch.testing.assert_close(y, expected)
    ours = torch.autograd.grad(y.sum(), (e, w, b))
    theirs = torch.autograd.grad(expected.sum(), (e, w, b))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [6, 600])
def test_strides(backend, device, rows):
    ids = torch.randint(0, 13, (3, 2 * rows), device=device)[:, ::2].t()
    e = torch.randn(20, 26, device=device)[::2, ::2].t()  # (13, 10)
    w = torch.randn(60, 17, device=device)[::2].t()  # (17, 30)
    b = torch.randn(51, device=device)[::3]
    assert not any(tensor.is_contiguous() for tensor in (ids, e, w, b))
    compare(embedding_linear_tanh, stock, (ids, e, w, b))
    same = ids[:1].expand(rows, 3), e[:1].expand(13, 10), w[:1].expand(17, 30), b[:1].expand(17)
    compare(embedding_linear_tanh, stock, same)
    misaligned = torch.randn(13 * 10 + 1, device=device)[1:].view(13, 10)
    compare(embedding_linear_tanh, stock, (ids.contiguous(), misaligned, w, b))
    compare(embedding_linear_tanh, stock, (ids.view(rows, 1, 3).expand(rows, 2, 3), e, w, b))


@pytest.mark.parametrize("rows", [12, 700])
def test_gradient_with_strides(backend, device, rows):
    ids, *tensors = problem(((rows, 3), 13, 5, 18), device)
    wide = torch.randn(18, 2 * rows, device=device)
    one = torch.randn((), device=device)
    for grad in (one.expand(rows, 18), wide[:, ::2].t(), wide[:, :1].t().expand(rows, 18)):
        got = []
        for function in (embedding_linear_tanh, stock):
            leaves = [tensor.clone().requires_grad_() for tensor in tensors]
            got.append(torch.autograd.grad(function(ids, *leaves), leaves, grad))
        torch.testing.assert_close(*got, rtol=1e-5, atol=1e-4)


def test_negated_views(backend, device):
    ids, e, w, b = problem(((6, 2), 5, 4, 3), device)
    w.requires_grad_()
    for function in (embedding_linear_tanh, mlpkern.autograd.EmbeddingLinearTanh.apply):
        y = function(ids, e._neg_view(), w._neg_view(), b._neg_view())
        torch.testing.assert_close(y, stock(ids, -e, -w, -b))
        grad = torch.randn(6, 3, device=device)
        (got,) = torch.autograd.grad(y, w, grad._neg_view())
        (expected,) = torch.autograd.grad(stock(ids, -e, -w, -b), w, -grad)
        torch.testing.assert_close(got, expected)


def test_citizenship(backend, device):
    ids, e, w, b = problem(((6, 2), 5, 4, 3), device)
    before = [tensor.clone() for tensor in (ids, e, w, b)]
    assert not embedding_linear_tanh(ids, e, w, b).requires_grad
    e.requires_grad_()
    y = embedding_linear_tanh(ids, e, w, b)
    first = torch.autograd.grad(y.sum(), e, retain_graph=True)[0]
    y.sum().backward(retain_graph=True)
    assert torch.equal(first, e.grad)
    for tensor, old in zip((ids, e, w, b), before, strict=True):
        assert torch.equal(tensor, old)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    for spoil in (lambda y: y.detach().mul_(2), lambda y: w.add_(1), lambda y: ids.fill_(0)):
        y = embedding_linear_tanh(ids, e, w, b)
        spoil(y)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_an_unused_output_costs_no_backward(backend, device):
    ids, e, w, b = problem(((6, 2), 5, 4, 3), device)
    e.requires_grad_()
    y = mlpkern.autograd.EmbeddingLinearTanh.apply(ids, e, w, b)
    assert torch.autograd.grad(
        e.sum() + 0 * y.detach().sum(), w.requires_grad_(), allow_unused=True
    ) == (None,)


# Errors


@pytest.mark.parametrize(
    ("shape", "position", "value"),
    [
        ((5, 3), (3, 1), 27),
        ((5, 3), (0, 0), -1),
        ((4,), (2,), 1000),
        ((2, 2, 2), (1, 0, 1), -5),
        ((3000, 3), (1234, 2), 27),
    ],
)
def test_id_out_of_range(backend, device, shape, position, value):
    ids = torch.randint(0, 27, shape)
    ids[position] = value
    ids[(-1,) * len(shape)] = value  # a later one must not win
    e = torch.randn(27, 10, device=device, requires_grad=True)
    w = torch.randn(20, shape[-1] * 10, device=device)
    where = ", ".join(map(str, position))
    message = rf"^embedding_linear_tanh: input\[{where}\] is {value}, expected 0 <= id < 27$"
    for dtype in (torch.int16, torch.int32, torch.int64):
        with pytest.raises(IndexError, match=message):
            embedding_linear_tanh(ids.to(device, dtype), e, w)
        with pytest.raises(IndexError, match=message), torch.no_grad():
            embedding_linear_tanh(ids.to(device, dtype), e, w)


def test_an_empty_table_has_no_id(backend, device):
    ids, e = torch.zeros(40, 2, dtype=torch.uint8, device=device), torch.empty(0, 10, device=device)
    with pytest.raises(IndexError, match=r"input\[0, 0\] is 0, expected 0 <= id < 0"):
        embedding_linear_tanh(ids, e, torch.randn(4, 20, device=device))


IDS = torch.zeros(32, 3, dtype=torch.int64)
E, W, B = torch.randn(27, 10), torch.randn(200, 30), torch.randn(200)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1]], E, W, B), TypeError, "input must be a torch.Tensor, got list"),
        ((IDS, None, W, B), TypeError, "embedding must be a torch.Tensor, got NoneType"),
        ((IDS, E, None, B), TypeError, "weight must be a torch.Tensor, got NoneType"),
        ((IDS, E, W, 1.0), TypeError, "bias must be a torch.Tensor, got float"),
        ((IDS.float(), E, W, B), TypeError, "input must be uint8, int16, .*, got float32"),
        ((IDS, E.int(), W, B), TypeError, "embedding must be float32, .*, got int32"),
        ((IDS, E, W.double(), B), TypeError, "weight must be float32 like embedding, got float64"),
        ((IDS, E, W, B.half()), TypeError, "bias must be float32 like embedding, got float16"),
        ((IDS, E[0], W, B), ValueError, r"embedding must be \(V, D\), got \(10,\)"),
        ((IDS[0, 0], E, W, B), ValueError, "input must be .* without dimensions"),
        (
            (IDS, E, W[:, :20], B),
            ValueError,
            r"weight must be \(H, 30\) to match input \(32, 3\) and embedding \(27, 10\), "
            r"got \(200, 20\)$",
        ),
        ((IDS, E, W[0], B), ValueError, r"weight must be \(H, 30\) .* got \(30,\)$"),
        ((IDS, E, W, B[1:]), ValueError, r"bias must be \(200,\) .* \(200, 30\), got \(199,\)$"),
        ((IDS, E, W, B[:, None]), ValueError, r"bias must be \(200,\) .* got \(200, 1\)$"),
        ((IDS, E.to("meta"), W, B), ValueError, "embedding must be on cpu like input, got meta"),
        ((IDS, E, W.to("meta"), B), ValueError, "weight must be on cpu like embedding, got meta"),
        ((IDS, E, W, B.to("meta")), ValueError, "bias must be on cpu like embedding, got meta"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=f"^embedding_linear_tanh: {message}"):
        embedding_linear_tanh(*arguments)
