"""Tensors with rows more than 2^31 elements apart, where a 32-bit offset would overflow.

The memory between the rows is reserved but never touched, so it costs address space only.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mlpkern

FAR = 2**31 + 65  # elements from one row to the next


def far_apart(rows: Tensor) -> Tensor:
    """A copy of the two rows, FAR elements apart."""
    try:
        storage = torch.empty(FAR + rows.shape[1], dtype=rows.dtype, device=rows.device)
    except RuntimeError as error:
        pytest.skip(f"no address space for {FAR} elements: {error}")
    return storage.as_strided(rows.shape, (FAR, 1)).copy_(rows)


def check(function, near: Tensor) -> None:
    results = []
    for tensor in (near, far_apart(near)):
        leaf = tensor.detach()
        if leaf.is_floating_point():
            leaf.requires_grad_()
        output = function(leaf)
        output.sum().backward()
        results.append((output.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    if near.is_floating_point():
        assert torch.equal(results[0][1], results[1][1])


def test_linear_tanh(backend, device):
    w, b = torch.randn(40, 30, device=device).bfloat16(), torch.randn(40, device=device).bfloat16()
    check(lambda x: mlpkern.linear_tanh(x, w, b), torch.randn(2, 30, device=device).bfloat16())
    x = torch.randn(5, 30, device=device).bfloat16()
    check(lambda w: mlpkern.linear_tanh(x, w), w[:2].clone())


def test_embedding_gather(backend, device):
    weight = torch.randn(27, 10, device=device, requires_grad=True)
    ids = torch.randint(0, 27, (2, 3), dtype=torch.uint8, device=device)
    check(lambda ids: mlpkern.embedding_gather(ids, weight), ids)
    check(
        lambda table: mlpkern.embedding_gather(ids % 2, table),
        torch.randn(2, 10, device=device).bfloat16(),
    )


@pytest.mark.parametrize("count", [2, 40])  # the second is folded
def test_embedding_linear_tanh(backend, device, count):
    table, w, b = (torch.randn(s, device=device).bfloat16() for s in ((2, 10), (40, 30), (40,)))
    ids = torch.randint(0, 2, (2, 3), dtype=torch.uint8, device=device)
    check(lambda i: mlpkern.embedding_linear_tanh(i, table.requires_grad_(), w, b), ids)
    ids = torch.randint(0, 2, (count, 3), device=device)
    check(lambda e: mlpkern.embedding_linear_tanh(ids, e, w, b), table.detach())
    check(lambda m: mlpkern.embedding_linear_tanh(ids, table, m), w[:2].clone())


def test_cross_entropy(backend, device):
    logits = torch.randn(2, 27, device=device).bfloat16()
    target = torch.tensor([3, 26], device=device)
    check(lambda x: mlpkern.cross_entropy(x, target), logits)
    leaf = torch.randn(2, 27, device=device, requires_grad=True)
    check(
        lambda t: mlpkern.cross_entropy(leaf, t[:, 0]),
        torch.tensor([[3], [26]], dtype=torch.uint8, device=device),
    )
