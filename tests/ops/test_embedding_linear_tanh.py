"""``embedding_linear_tanh`` against ``torch.tanh(F.linear(F.embedding(...).flatten(-2), ...))``.

Empty batches, strides and errors are in ``test_embedding_linear_tanh_edges.py``.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from support.op_problems import pair_problem as problem
from support.op_problems import stock_pair as stock
from support.tolerance import FLOATS, INTEGERS, compare
from torch.autograd import gradcheck, gradgradcheck

import mlpkern
from mlpkern import embedding_linear_tanh

# (ids, V, D, H): one of everything; the lecture's layer; widths around 16 lanes, and rows of T*D
# that are no multiple of a vector; more than a tile of rows, a panel of columns, a chunk of depth;
# batches many times larger than the table, which are folded, in one piece and in several, and
# smaller ones; tables with more rows than a chunk of depth, one of them too large for a cache once
# folded.
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
    """More elements of dx than the backward keeps at once; the table is too large to fold."""
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
