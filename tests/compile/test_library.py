"""The ops as registered with ``torch.library``; fake, meta and subclassed tensors."""

from __future__ import annotations

import pytest
import torch
from support.mlp_functions import batch, fused, parameters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

import mlpkern
from mlpkern.registry import has_op


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch 2.14 itself reads it
def test_opcheck(backend, device):
    ops = torch.ops.mlpkern
    ids, target = batch(8, device)
    table, w, b, _ = parameters(device)
    x = torch.randn(8, 30, device=device, requires_grad=True)
    y = torch.randn(8, 40, device=device)
    logits = torch.randn(8, 27, device=device, requires_grad=True)
    q = torch.rand(8, 27, device=device, requires_grad=True)
    target[2], weight, lse = -100, torch.rand(27, device=device), torch.rand(2, 8, device=device)
    one, ids = torch.ones((), device=device), ids.to(torch.uint8)
    plain = x.detach(), w.detach()
    for op, arguments in (
        (ops.embedding_gather, (ids, table, -1)),
        (ops.embedding_gather, (ids, table, 3)),
        (ops.embedding_gather_backward, (x.detach(), ids, 27, 3)),
        (ops.linear_tanh, (x, w, b)),
        (ops.linear_tanh, (y[0, :30], w, None)),
        (ops.linear_tanh_backward, (y, *plain, y, True, False, True)),
        (ops.embedding_linear_tanh, (ids, table, w, b)),
        (ops.embedding_linear_tanh, (ids[0], table, w, None)),
        (
            ops.embedding_linear_tanh_backward,
            (y, ids, table.detach(), plain[1], y, True, False, True),
        ),
        (ops.cross_entropy, (logits, target, None, -100, 1, 0.1)),
        (ops.cross_entropy, (logits, q, weight, -100, 0, 0.0)),
        (ops.cross_entropy_backward, (one, q.detach(), target, weight, lse, one, -100, 1, 0.1)),
    ):
        if has_op(backend, op.__name__.removesuffix("_backward")):
            opcheck(op.default, arguments)


def test_a_traced_op_is_differentiable_twice():
    """The op of torch.library in eager mode, as a tensor subclass calls it."""
    x, w = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((3, 4), (2, 4)))
    target = torch.randint(0, 4, (3,))
    ops = torch.ops.mlpkern
    for function in (
        lambda x, w: ops.linear_tanh(x, w, None),
        lambda x, w: ops.cross_entropy(x, target, None, -100, 1, 0.1)[0] + 0 * w.sum(),
        lambda x, w: ops.embedding_linear_tanh(target[:, None] % 2, w, x, None),
        lambda x, w: ops.embedding_gather(target[:, None], w[[0, 1, 0, 1]], -1) * x[0, 0],
    ):
        assert torch.autograd.gradcheck(function, (x, w))
        assert torch.autograd.gradgradcheck(function, (x, w))


def test_what_the_backward_needs_has_no_gradient_of_its_own():
    logits, target = torch.randn(3, 4, requires_grad=True), torch.randint(0, 4, (3,))
    results = torch.ops.mlpkern.cross_entropy(logits, target, None, -100, 1, 0.0)
    assert [result.requires_grad for result in results] == [True, False, False]


def test_make_fx_and_fake_tensors_see_one_op():
    x, w = torch.randn(3, 4), torch.randn(5, 4)
    graph = make_fx(lambda x, w: mlpkern.linear_tanh(x, w))(x, w).graph
    targets = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert targets == ["mlpkern.linear_tanh.default"]
    with FakeTensorMode() as mode:
        y = mlpkern.linear_tanh(mode.from_tensor(x), mode.from_tensor(w))
        loss = mlpkern.cross_entropy(y, torch.zeros(3, dtype=torch.int64), reduction="none")
    assert y.shape == (3, 5)
    assert loss.shape == (3,)
    assert type(y) is not torch.Tensor
    with FlopCounterMode(display=False):  # any dispatch mode sees the op, not a hole
        assert torch.equal(mlpkern.linear_tanh(x, w), mlpkern.linear_tanh(x, w))


def test_meta_tensors_get_shapes():
    meta = [tensor.detach().to("meta") for tensor in (*batch(7), *parameters())]
    meta = [t.requires_grad_(t.is_floating_point()) for t in meta]
    assert mlpkern.embedding_gather(meta[0], meta[2]).shape == (7, 30)
    assert mlpkern.embedding_linear_tanh(meta[0], *meta[2:5]).shape == (7, 40)
    loss = fused(*meta, reduction="none")
    assert loss.is_meta
    assert loss.shape == (7,)
    loss.sum().backward()
    assert all(t.grad.shape == t.shape for t in meta[2:])


def test_a_subclass_of_tensor_passes_through():
    class Mine(torch.Tensor):
        pass

    x, w = torch.randn(3, 4), torch.randn(5, 4)
    y = mlpkern.linear_tanh(x.as_subclass(Mine), w)
    assert type(y) is Mine
    torch.testing.assert_close(y.as_subclass(torch.Tensor), mlpkern.linear_tanh(x, w))
