"""The ops under ``torch.autocast``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from support.mlp_functions import batch, fused, parameters, stock
from support.op_problems import stock_pair as stock_layer

import mlpkern
from mlpkern.registry import has_op


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_follows_the_policy_of_torch(backend, device, dtype):
    values, (ids, target) = parameters(device), batch(16, device)
    table, w, b, out = values
    with torch.autocast(device, dtype=dtype):
        embedded = mlpkern.embedding_gather(ids, table)
        h = mlpkern.linear_tanh(embedded, w, b)
        logits = F.linear(h, out)
        weight = torch.rand(27, device=device)
        loss = mlpkern.cross_entropy(logits, target, weight)  # float32 weights, half logits
        q = mlpkern.cross_entropy(logits, logits.detach().softmax(1))
    assert [t.dtype for t in (embedded, h, logits, loss, q)] == [
        torch.float32,
        dtype,
        dtype,
        torch.float32,
        torch.float32,
    ]
    halves = (tensor.to(dtype) for tensor in (embedded, w, b))
    assert torch.equal(h, mlpkern.linear_tanh(*halves))  # cast once, and float32 inside
    grads = torch.autograd.grad(loss, values)
    assert all(g.dtype is torch.float32 for g in grads)
    expected = torch.autograd.grad(stock(ids, target, *values, weight=weight), values)
    for g, e in zip(grads, expected, strict=True):
        torch.testing.assert_close(g, e, rtol=0.1, atol=10 * torch.finfo(dtype).eps * e.abs().max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("n", [16, 200])
def test_autocast_casts_the_table_as_well(backend, device, dtype, n):
    if not has_op(backend, "embedding_linear_tanh"):
        pytest.skip(f"backend {backend} has no embedding_linear_tanh")
    values, (ids, _) = parameters(device)[:3], batch(n, device)
    with torch.autocast(device, dtype=dtype):
        y = mlpkern.embedding_linear_tanh(ids, *values)
        expected = stock_layer(ids, *values)
    assert y.dtype is dtype
    assert torch.equal(y, mlpkern.embedding_linear_tanh(ids, *(v.to(dtype) for v in values)))
    grad = torch.randn_like(y)
    grads, wanted = (torch.autograd.grad(out, values, grad) for out in (y, expected))
    for g, e in zip(grads, wanted, strict=True):
        assert g.dtype is torch.float32
        torch.testing.assert_close(g, e, rtol=0.1, atol=10 * torch.finfo(dtype).eps * e.abs().max())


def test_autocast_leaves_float64_and_other_devices_alone(backend, device):
    x, w = (torch.randn(3, 4, dtype=torch.float64, device=device) for _ in range(2))
    exact = torch.tanh(x @ w.t())
    with torch.autocast(device, dtype=torch.bfloat16):
        y = mlpkern.linear_tanh(x, w)
        y.requires_grad_()
    torch.testing.assert_close(y, exact)
    w = w.float().requires_grad_()
    with torch.autocast("cuda" if device == "cpu" else "cpu", dtype=torch.bfloat16, enabled=False):
        assert mlpkern.linear_tanh(x.float(), w).dtype is torch.float32


def test_compile_under_autocast():
    torch.compiler.reset()
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    values, (ids, target) = parameters(), batch(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = [f(ids, target, *values) for f in (compiled, fused)]
    grads = [torch.autograd.grad(loss, values) for loss in results]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*grads)
