"""Edge cases of ``embedding_gather``: frequent ids, non-finite gradients, storage.

Backends sum the gradients of small and large tables in different ways: V is 27 or 5,003.
"""

from __future__ import annotations

import pytest
import torch
from support.op_problems import stock_gather as stock
from support.tolerance import assert_as_good_as_torch, compare

import mlpkern
from mlpkern import embedding_gather
from mlpkern.registry import select

TABLES = [(27, 10), (5003, 7)]


def gradients(ids, weight, grad, padding_idx=None):
    """The gradient of the table: ours, torch's, and torch's in float64."""
    found = []
    for function, dtype in ((embedding_gather, None), (stock, None), (stock, torch.float64)):
        leaf = weight.detach().to(dtype or weight.dtype).requires_grad_()
        output = function(ids, leaf, padding_idx=padding_idx)
        found += torch.autograd.grad(output, leaf, grad.to(leaf.dtype))
    return found


@pytest.mark.parametrize("table", TABLES, ids=str)
@pytest.mark.parametrize("common", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_ids_that_occur_very_often(backend, device, table, common, dtype):
    V, D = table
    ids = torch.randint(0, V, (1201, 2))
    ids[torch.rand(ids.shape) < common] = V // 2  # sums that one team of threads cannot finish
    weight = torch.randn(V, D).to(device, dtype)
    compare(embedding_gather, stock, (ids.to(device), weight))


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_padding_idx_among_many_ids(backend, device, table):
    V, D = table
    ids = torch.randint(0, V, (1201, 2), device=device)
    ids[::3] = V - 1
    weight, grad = torch.randn(V, D, device=device), torch.randn(1201, 2 * D, device=device)
    found = gradients(ids, weight, grad, V - 1)
    assert_as_good_as_torch(*found)
    assert not found[0][V - 1].any()


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_infinite_gradients_stay_in_their_rows(backend, device, table):
    V, D = table
    ids = torch.randint(0, V - 1, (1201, 2))
    ids[1000] = V - 1
    grad = torch.randn(1201, 2, D)
    grad[7, 0, 0], grad[7, 1, D - 1] = torch.inf, torch.nan
    grad[1000, 0, 2], grad[1000, 1, 2] = torch.inf, -torch.inf  # their sum is NaN
    weight = torch.randn(V, D, device=device)
    found = gradients(ids.to(device), weight, grad.flatten(1).to(device))
    assert found[0].isfinite().sum() == V * D - 3
    assert_as_good_as_torch(*found)


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_strides_of_many_ids_and_gradients(backend, device, table):
    V, D = table
    ids = torch.randint(0, V, (1201, 5), dtype=torch.int16, device=device)[:, 1:4:2]
    weight, wide = torch.randn(V, D, device=device), torch.randn(1201, 4 * D, device=device)
    for grad in (wide[:, ::2], wide[:, D : 3 * D], wide[:1, :1].expand(1201, 2 * D)):
        assert_as_good_as_torch(*gradients(ids, weight, grad))


@pytest.mark.parametrize("width", [1, 64, 129, 300])
@pytest.mark.parametrize("rows", [3, 3001])
def test_widths_of_one_and_several_tiles(backend, device, width, rows):
    ids = torch.randint(0, rows, (211, 2), device=device)
    compare(embedding_gather, stock, (ids, torch.randn(rows, width, device=device)))


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_ids_out_of_range_add_nothing_to_a_gradient(backend, device, table):
    V, D = table
    ids = torch.randint(0, V, (1201, 2), device=device)
    grad = torch.randn(1201, 2 * D, device=device)
    kernels = select("embedding_gather", grad)
    ids[5, 1] = ids[9, 0] = V - 1
    expected = kernels.embedding_gather_backward(grad, ids, V, V - 1)
    ids[5, 1], ids[9, 0] = V, -1
    if device == "cpu" and backend != "triton":
        with pytest.raises(IndexError, match=rf"input\[5, 1\] is {V}, expected 0 <= id < {V}$"):
            kernels.embedding_gather_backward(grad, ids, V, V - 1)
        return
    found = kernels.embedding_gather_backward(grad, ids, V, V - 1)
    with pytest.raises(IndexError, match=rf"input\[(5, 1\] is {V}|9, 0\] is -1), expected 0 <="):
        mlpkern.check_errors()
    assert torch.equal(found, expected)
    mlpkern.check_errors()  # it is told once
