"""``embedding_linear_tanh`` against ``torch.tanh(F.linear(F.embedding(...).flatten(-2), ...))``."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from support.tolerance import FLOATS, INTEGERS, compare
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import mlpkern
from mlpkern import embedding_linear_tanh

# (ids, V, D, H): one of everything; the lecture's layer; widths around 16 lanes, and rows of T*D
# that no vector divides; more than a tile of rows, a panel of columns, a chunk of depth; batches of
# many times the table, which are folded, in one piece and in several, and of less than it; tables
# of more rows than a chunk of depth has terms, one of them too large for a cache once folded.
SIZES = [
    ((1, 1), 1, 1, 1),
    ((32, 3), 27, 10, 200),
    ((5,), 31, 16, 16),
    ((2, 3, 4), 33, 17, 15),
    ((17, 1), 2, 15, 33),
    ((9, 5), 101, 31, 17),
    ((33, 7), 7, 3, 65),
    ((1201, 3), 27, 10, 200),
    ((2503, 2), 11, 33, 31),
    ((4099, 4), 300, 12, 9),
    ((1031, 2), 5003, 24, 40),
    ((300, 9), 30, 32, 7),
    ((4003, 2), 1501, 32, 101),
]


def stock(ids: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.tanh(F.linear(F.embedding(ids.long(), embedding).flatten(-2), weight, bias))


def problem(size, device, dtype=torch.float32, ids_dtype=torch.int64):
    shape, rows, width, h = size
    k = shape[-1] * width
    ids = torch.randint(0, rows, shape).to(device, ids_dtype)
    tensors = torch.randn(rows, width), torch.randn(h, k) / k**0.5, torch.randn(h)
    return ids, *(tensor.to(device, dtype) for tensor in tensors)


# Equals torch


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equals_torch(backend, device, size, dtype):
    ids, e, w, b = problem(size, device, dtype)
    compare(embedding_linear_tanh, stock, (ids, e, w, b))
    compare(embedding_linear_tanh, stock, (ids, e, w))


@pytest.mark.parametrize("ids_dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("rows", [23, 1500])
def test_every_integer_dtype(backend, device, ids_dtype, rows):
    count = 256 if ids_dtype is torch.uint8 else 300
    ids, e, w, b = problem(((rows, 3), count, 10, 20), device)
    ids[0, 0] = count - 1  # 255 is no negative number in uint8
    compare(embedding_linear_tanh, stock, (ids.to(ids_dtype), e, w, b))


def test_a_batch_of_several_chunks(backend, device):
    """dx of more elements than the backward keeps at once, for a table too large to fold."""
    problems = problem(((21_001, 4), 20_011, 30, 2), device)
    compare(embedding_linear_tanh, stock, problems)
    ids, e, w, b = problems
    compare(embedding_linear_tanh, stock, (ids, e.bfloat16(), w.bfloat16(), b.bfloat16()))


# Gradients


@pytest.mark.parametrize("needs", [n for n in itertools.product([True, False], repeat=3) if any(n)])
@pytest.mark.parametrize("rows", [21, 900])
def test_only_the_gradients_that_are_needed(backend, device, needs, rows):
    ids, *tensors = problem(((rows, 2), 13, 9, 19), device)
    compare(embedding_linear_tanh, stock, (ids, *tensors), (False, *needs))
    leaves = [t.clone().requires_grad_(need) for t, need in zip(tensors, needs, strict=True)]
    embedding_linear_tanh(ids, *leaves).sum().backward()
    assert [leaf.grad is not None for leaf in leaves] == list(needs)


@pytest.mark.parametrize(
    "size",
    [
        ((3, 2), 4, 5, 3),
        ((2,), 4, 5, 3),
        ((2, 3, 2), 4, 5, 3),
        ((20, 2), 3, 8, 3),
    ],  # the last folds
    ids=str,
)
def test_gradcheck(backend, device, size):
    ids, *tensors = problem(size, device, torch.float64)
    e, w, b = (tensor.requires_grad_() for tensor in tensors)

    def function(*leaves):
        return embedding_linear_tanh(ids, *leaves)

    assert gradcheck(function, (e, w, b), check_batched_grad=True)
    assert gradgradcheck(function, (e, w, b))
    assert gradgradcheck(function, (e.detach(), w))


def test_a_gradient_penalty_reaches_the_parameters(backend, device):
    ids, *tensors = problem(((9, 2), 6, 4, 8), device, torch.float64)

    def gradients(function):
        e, w, b = (tensor.clone().requires_grad_() for tensor in tensors)
        (g,) = torch.autograd.grad(function(ids, e, w, b).pow(2).sum(), e, create_graph=True)
        return torch.autograd.grad(g.pow(2).sum(), (e, w, b))

    torch.testing.assert_close(gradients(embedding_linear_tanh), gradients(stock))


# Properties


@pytest.mark.parametrize("size", [((65, 3), 270, 10, 40), ((1200, 3), 27, 10, 40)], ids=str)
def test_equals_the_two_ops_one_after_the_other(backend, device, size):
    ids, e, w, b = problem(size, device, torch.float64)
    pair = mlpkern.linear_tanh(mlpkern.embedding_gather(ids, e), w, b)
    torch.testing.assert_close(embedding_linear_tanh(ids, e, w, b), pair)


@pytest.mark.parametrize("size", [((65, 3), 270, 10, 40), ((1200, 3), 27, 10, 40)], ids=str)
def test_permuting_the_batch_permutes_the_rows(backend, device, size):
    ids, e, w, b = problem(size, device)
    order = torch.randperm(size[0][0], device=device)
    whole = embedding_linear_tanh(ids, e, w, b)
    torch.testing.assert_close(embedding_linear_tanh(ids[order], e, w, b), whole[order])


@pytest.mark.parametrize("size", [((2003, 3), 27, 10, 70), ((3001, 2), 4999, 7, 20)], ids=str)
def test_same_bits_every_time(backend, device, size):
    ids, *tensors = problem(size, device)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    grad = torch.randn(size[0][0], size[3], device=device)
    runs = [
        torch.autograd.grad(embedding_linear_tanh(ids, *leaves), leaves, grad) for _ in range(2)
    ]
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("rows", [20, 900])
def test_nan_stays_in_the_rows_that_use_it(backend, device, rows):
    ids, e, w, b = problem(((rows, 2), 13, 9, 19), device)
    e[5] = torch.nan
    y = embedding_linear_tanh(ids, e, w, b)
    uses = (ids == 5).any(1)
    assert y[uses].isnan().all()
    assert y[~uses].isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("rows", [20, 900])
def test_rows_of_the_table_that_no_id_names_count_for_nothing(backend, device, rows, value):
    ids, e, w, b = problem(((rows, 2), 13, 9, 19), device)
    ids[ids == 5] = 6
    e[5] = value
    leaves = [tensor.requires_grad_() for tensor in (e, w, b)]
    grads = torch.autograd.grad(embedding_linear_tanh(ids, *leaves).sum(), leaves)
    assert all(grad.isfinite().all() for grad in grads)
    assert (grads[0][5] == 0).all()


def test_an_infinite_row_spoils_the_gradient_of_its_position_alone(backend, device):
    ids, e, w, b = problem(((900, 2), 13, 9, 19), device)
    ids[:, 0][ids[:, 0] == 5] = 6
    e[5, 3] = torch.inf
    e, w = e.requires_grad_(), w.requires_grad_()
    (grad,) = torch.autograd.grad(embedding_linear_tanh(ids, e, w, b).sum(), w)
    (expected,) = torch.autograd.grad(stock(ids, e, w, b).sum(), w)
    assert torch.equal(grad.isfinite(), expected.isfinite())
    assert grad[:, :9].isfinite().all()


# Edges


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
