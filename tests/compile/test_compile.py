"""``torch.compile`` and ``torch.jit.trace`` of the ops."""

from __future__ import annotations

import pytest
import torch
from support.mlp_functions import batch, fused, parameters, stock
from support.op_problems import stock_pair as stock_layer
from torch import nn

import mlpkern


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_compile_gives_the_same_numbers(compiler):
    torch.compiler.reset()
    compiled = torch.compile(fused, fullgraph=True, backend=compiler)
    values = parameters()
    for n in (32, 17, 33):  # the second size makes it recompile with a dynamic one
        ids, target = batch(n)
        target[::5] = -100
        results = []
        for function in (compiled, stock):
            loss = function(ids, target, *values)
            results.append((loss, *torch.autograd.grad(loss, values)))
        torch.testing.assert_close(*results)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids, target, *values), stock(ids, target, *values))


def test_compile_of_embedding_linear_tanh():
    torch.compiler.reset()
    compiled = torch.compile(mlpkern.embedding_linear_tanh, fullgraph=True, backend="aot_eager")
    values = parameters()[:3]
    for n in (8, 300, 301):  # below and above the fold; the second size makes it dynamic
        ids, _ = batch(n)
        results = []
        for function in (compiled, stock_layer):
            y = function(ids, *values)
            results.append((y, *torch.autograd.grad(y.square().sum(), values)))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-4)
    ids[1, 2] = 28
    with pytest.raises(IndexError, match=r"embedding_linear_tanh: input\[1, 2\] is 28, expected"):
        compiled(ids, *values)


def test_compile_of_the_layers_with_every_option():
    torch.compiler.reset()
    layers = nn.Sequential(mlpkern.nn.EmbeddingGather(27, 10, 3), mlpkern.nn.LinearTanh(30, 5))
    loss = mlpkern.nn.CrossEntropyLoss(torch.rand(5), label_smoothing=0.1, reduction="none")
    ids, q = torch.randint(0, 27, (6, 3), dtype=torch.int16), torch.rand(6, 5)

    def step(ids, q):
        return loss(layers(ids), q)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    results = [
        (
            out := f(ids, q.requires_grad_()),
            *torch.autograd.grad(out.sum(), [*layers.parameters(), q]),
        )
        for f in (compiled, step)
    ]
    torch.testing.assert_close(*results)


def test_compiled_code_raises_the_same_index_error():
    torch.compiler.reset()
    compiled = torch.compile(mlpkern.embedding_gather, fullgraph=True, backend="aot_eager")
    ids = torch.tensor([[1, 2], [3, 28]])
    with pytest.raises(IndexError, match=r"embedding_gather: input\[1, 1\] is 28, expected 0 <="):
        compiled(ids, torch.randn(27, 4))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # for each size that is compared
def test_jit_trace_bakes_nothing_in():
    x, w = torch.randn(3, 4), torch.randn(5, 4)
    traced = torch.jit.trace(lambda x: x.sum() + mlpkern.linear_tanh(x, w), x)
    other = torch.randn(3, 4)
    torch.testing.assert_close(traced(other), other.sum() + mlpkern.linear_tanh(other, w))
