"""``embedding_gather`` against ``F.embedding(...).flatten(-2)``."""

from __future__ import annotations

import pytest
import torch
from support.op_problems import checked
from support.op_problems import stock_gather as stock
from support.tolerance import FLOATS, INTEGERS, compare
from torch.autograd import gradcheck, gradgradcheck

import mlpkern
from mlpkern import embedding_gather

# (ids, V, D): one of everything; the lecture's T = 3, V = 27, D = 10; one vector of 4 to 16 lanes
# and one element more; primes; more ids than a serial kernel handles; a table with mostly unused
# rows.
SIZES = [
    ((1, 1), 1, 1),
    ((32, 3), 27, 10),
    ((5,), 31, 16),
    ((2, 3, 4), 33, 17),
    ((17, 1), 2, 15),
    ((9, 5), 101, 31),
    ((13, 2), 200, 33),
    ((7001, 3), 27, 10),
    ((41, 2), 30_011, 8),
]


def problem(size, device, dtype=torch.float32, ids_dtype=torch.int64):
    shape, rows, width = size
    ids = torch.randint(0, rows, shape).to(ids_dtype)
    return ids.to(device), torch.randn(rows, width, dtype=torch.float64).to(device, dtype)


# Equals torch


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equals_torch(backend, device, size, dtype):
    ids, weight = problem(size, device, dtype)
    assert torch.equal(embedding_gather(ids, weight), stock(ids, weight))  # a copy: bit for bit
    compare(embedding_gather, stock, (ids, weight))


@pytest.mark.parametrize("ids_dtype", INTEGERS, ids=str)
def test_every_integer_dtype(backend, device, ids_dtype):
    ids, weight = problem(((23, 3), 256 if ids_dtype is torch.uint8 else 300, 10), device)
    ids[0, 0] = weight.shape[0] - 1  # 255 is no negative number in uint8
    ids = ids.to(ids_dtype)
    assert torch.equal(embedding_gather(ids, weight), stock(ids, weight))
    compare(embedding_gather, stock, (ids, weight))


@pytest.mark.parametrize("padding_idx", [0, 5, 26, -1, -27])
def test_padding_idx(backend, device, padding_idx):
    ids, weight = problem(((200, 3), 27, 10), device)

    def ours(ids, weight):
        return embedding_gather(ids, weight, padding_idx=padding_idx)

    compare(ours, lambda i, w: stock(i, w, padding_idx), (ids, weight))
    weight.requires_grad_()
    ours(ids, weight).sum().backward()
    unused = torch.ones(27, dtype=torch.bool).scatter_(0, ids.cpu().flatten(), False)
    unused[padding_idx] = True
    assert torch.equal((weight.grad == 0).all(1).cpu(), unused)


# Gradients


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_gradcheck(backend, device, padding_idx):
    ids, weight = problem(((4, 3), 5, 2), device, torch.float64)
    weight.requires_grad_()

    def function(weight):
        return embedding_gather(ids, weight, padding_idx=padding_idx)

    if padding_idx is None:  # its row has a zero gradient by decree, not by differentiation
        assert gradcheck(function, (weight,), check_batched_grad=True)
    assert gradgradcheck(function, (weight,))


def test_create_graph_reaches_the_weight(backend, device):
    ids, weight = problem(((6, 2), 7, 3), device, torch.float64)

    def penalty(function):
        leaf = weight.clone().requires_grad_()
        (grad,) = torch.autograd.grad(function(ids, leaf).pow(3).sum(), leaf, create_graph=True)
        grad.pow(2).sum().backward()
        return leaf.grad

    torch.testing.assert_close(penalty(embedding_gather), penalty(stock))


# Properties


def test_permuting_the_ids_permutes_the_rows(backend, device):
    ids, weight = problem(((19, 4), 50, 6), device)
    order = torch.randperm(19, device=device)
    whole = embedding_gather(ids, weight)
    assert torch.equal(embedding_gather(ids[order], weight), whole[order])


def test_gradient_conserves_the_sum(backend, device):
    ids, weight = problem(((101, 3), 27, 10), device, torch.float64)
    weight.requires_grad_()
    grad = torch.randn(101, 30, dtype=torch.float64, device=device)
    embedding_gather(ids, weight).backward(grad)
    torch.testing.assert_close(weight.grad.sum(0), grad.view(-1, 10).sum(0))


@pytest.mark.parametrize("size", [((5003, 3), 27, 10), ((3001, 2), 4999, 7)], ids=str)
def test_same_bits_every_time(backend, device, size):
    ids, weight = problem(size, device)
    weight.requires_grad_()
    grad = torch.randn(stock(ids, weight).shape, device=device)
    first, second = (
        torch.autograd.grad(embedding_gather(ids, weight), weight, grad)[0] for _ in range(2)
    )
    assert torch.equal(first, second)


# Edges


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (2, 0, 3)], ids=str)
def test_no_ids(backend, device, shape):
    ids = torch.empty(shape, dtype=torch.int64, device=device)
    weight = torch.randn(27, 10, device=device, requires_grad=True)
    output = embedding_gather(ids, weight)
    assert output.shape == stock(ids, weight).shape
    output.sum().backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_a_table_without_rows_or_columns(backend, device):
    empty = torch.empty(0, 3, dtype=torch.int64, device=device)
    assert embedding_gather(empty, torch.empty(0, 10, device=device)).shape == (0, 30)
    ids = torch.zeros(4, 3, dtype=torch.int64, device=device)
    weight = torch.empty(27, 0, device=device, requires_grad=True)
    output = embedding_gather(ids, weight)
    assert output.shape == (4, 0)
    output.sum().backward()
    assert weight.grad.shape == (27, 0)


def test_strides(backend, device):
    ids = torch.randint(0, 27, (6, 40), device=device)[:, ::3].t()  # (14, 6), not contiguous
    weight = torch.randn(20, 54, device=device)[::2, ::2].t()  # (27, 10), not contiguous
    assert not ids.is_contiguous()
    assert not weight.is_contiguous()
    compare(embedding_gather, stock, (ids, weight))
    shifted = torch.randn(271, device=device)[1:].view(27, 10)  # misaligned by one float
    compare(embedding_gather, stock, (ids.expand(14, 6), shifted))
    compare(embedding_gather, stock, (ids[:1].expand(5, 6), shifted[3:4].expand(27, 10)))


def test_gradient_with_strides(backend, device):
    ids, weight = problem(((11, 3), 27, 10), device)
    wide = torch.randn(11, 60, device=device)
    for grad in (torch.ones((), device=device).expand(11, 30), wide[:, ::2], wide[:1, 30:]):
        grad = grad.expand(11, 30)
        ours, theirs = (
            torch.autograd.grad(f(ids, w), w, grad)[0]
            for f, w in ((f, weight.clone().requires_grad_()) for f in (embedding_gather, stock))
        )
        torch.testing.assert_close(ours, theirs)


def test_negated_views(backend, device):
    ids, weight = problem(((8, 3), 27, 10), device)
    assert torch.equal(embedding_gather(ids, weight._neg_view()), -stock(ids, weight))
    weight.requires_grad_()
    grad = torch.randn(8, 30, device=device)
    output = embedding_gather(ids, weight)
    (got,) = torch.autograd.grad(output, weight, grad._neg_view(), retain_graph=True)
    torch.testing.assert_close(got, -torch.autograd.grad(output, weight, grad)[0])


def test_citizenship(backend, device):
    ids, weight = problem(((8, 3), 27, 10), device)
    before = weight.clone()
    assert not embedding_gather(ids, weight).requires_grad
    weight.requires_grad_()
    output = embedding_gather(ids, weight)
    first = torch.autograd.grad(output.sum(), weight, retain_graph=True)[0]
    output.sum().backward(retain_graph=True)
    assert torch.equal(first, weight.grad)
    output.sum().backward()
    assert torch.equal(2 * first, weight.grad)
    assert torch.equal(weight, before)
    with pytest.raises(RuntimeError, match="second time"):
        output.sum().backward()
    output = embedding_gather(ids, weight)
    ids += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


# Errors


@pytest.mark.parametrize(
    ("shape", "position", "value"),
    [((5, 3), (3, 1), 27), ((5, 3), (0, 0), -1), ((4,), (2,), 1000), ((2, 2, 2), (1, 0, 1), -5)],
)
def test_id_out_of_range(backend, device, shape, position, value):
    ids = torch.randint(0, 27, shape)
    ids[position] = value
    weight = torch.randn(27, 10, device=device, requires_grad=True)
    where = ", ".join(map(str, position))
    message = rf"^embedding_gather: input\[{where}\] is {value}, expected 0 <= id < 27$"
    for dtype in (torch.int16, torch.int32, torch.int64):
        with pytest.raises(IndexError, match=message):
            checked(embedding_gather, ids.to(device, dtype), weight)
        with pytest.raises(IndexError, match=message), torch.no_grad():
            checked(embedding_gather, ids.to(device, dtype), weight)


def test_uint8_id_out_of_range(backend, device):
    ids = torch.tensor([[1, 255]], dtype=torch.uint8, device=device)
    with pytest.raises(IndexError, match=r"input\[0, 1\] is 255, expected 0 <= id < 255"):
        checked(embedding_gather, ids, torch.randn(255, 2, device=device))


IDS = torch.zeros(4, 3, dtype=torch.int64)
TABLE = torch.randn(27, 10)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([[1]], TABLE), {}, TypeError, "input must be a torch.Tensor, got list"),
        ((IDS, None), {}, TypeError, "weight must be a torch.Tensor, got NoneType"),
        ((IDS.float(), TABLE), {}, TypeError, "input must be uint8, int16, .*, got float32"),
        ((IDS.bool(), TABLE), {}, TypeError, "input must be uint8, int16, .*, got bool"),
        ((IDS, TABLE.int()), {}, TypeError, "weight must be float32, .*, got int32"),
        ((IDS, TABLE.cfloat()), {}, TypeError, "weight must be float32, .*, got complex64"),
        ((IDS, TABLE[0]), {}, ValueError, r"weight must be \(V, D\), got \(10,\)"),
        ((IDS[0, 0], TABLE), {}, ValueError, "input must be .* without dimensions"),
        ((IDS, TABLE), {"padding_idx": 27}, ValueError, "padding_idx must be -27 .* got 27"),
        ((IDS, TABLE), {"padding_idx": -28}, ValueError, "padding_idx must be -27 .* got -28"),
        ((IDS, TABLE.to("meta")), {}, ValueError, "weight must be on cpu like input, got meta"),
    ],
)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error, match=f"^embedding_gather: {message}"):
        mlpkern.embedding_gather(*arguments, **options)
