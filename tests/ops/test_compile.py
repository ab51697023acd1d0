"""Tracers and transforms: torch.library, torch.compile, autocast, FakeTensor, torch.func."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

import mlpkern
from mlpkern.registry import has_op


def parameters(device="cpu", dtype=torch.float32):
    shapes = [(27, 10), (40, 30), (40,), (27, 40)]
    return [(0.3 * torch.randn(s)).to(device, dtype).requires_grad_() for s in shapes]


def batch(n, device="cpu"):
    ids = torch.randint(0, 27, (n, 3), device=device)
    target = torch.randint(0, 27, (n,), device=device)
    return ids, target


def fused(ids, target, table, w, b, out, **options):
    h = mlpkern.linear_tanh(mlpkern.embedding_gather(ids, table), w, b)
    return mlpkern.cross_entropy(F.linear(h, out), target, **options)


def stock_layer(ids, table, w, b):
    return torch.tanh(F.linear(F.embedding(ids, table).flatten(-2), w, b))


def stock(ids, target, table, w, b, out, **options):
    h = stock_layer(ids, table, w, b)
    return F.cross_entropy(F.linear(h, out), target, **options)


# torch.library


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
    """The op of torch.library in eager mode, as a tensor subclass would get it."""
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


# torch.compile


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


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # for each size that is compared
def test_jit_trace_bakes_nothing_in():
    x, w = torch.randn(3, 4), torch.randn(5, 4)
    traced = torch.jit.trace(lambda x: x.sum() + mlpkern.linear_tanh(x, w), x)
    other = torch.randn(3, 4)
    torch.testing.assert_close(traced(other), other.sum() + mlpkern.linear_tanh(other, w))


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


# Autocast


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


# torch.func


def test_per_example_gradients():
    values, (ids, target) = parameters(), batch(6)
    values = [v.detach() for v in values]

    def per_example(function):
        def loss(params, i, t):
            return function(i[None], t[None], *params)

        return vmap(grad(loss), in_dims=(None, 0, 0))(values, ids, target)

    torch.testing.assert_close(per_example(fused), per_example(stock))


def test_vmap_over_models():
    models = [parameters() for _ in range(3)]
    stacked = [torch.stack([m[i].detach() for m in models]) for i in range(4)]
    ids, target = batch(5)
    losses = vmap(lambda *values: fused(ids, target, *values))(*stacked)
    expected = torch.stack([stock(ids, target, *m) for m in models]).detach()
    torch.testing.assert_close(losses, expected)


def test_transforms_of_embedding_linear_tanh():
    values, (ids, _) = [v.detach().double() for v in parameters()[:3]], batch(5)

    def per_example(function):
        def loss(params, i):
            return function(i[None], *params).square().sum()

        return vmap(grad(loss), in_dims=(None, 0))(values, ids)

    ours, theirs = mlpkern.embedding_linear_tanh, stock_layer
    torch.testing.assert_close(per_example(ours), per_example(theirs))
    tangents = tuple(torch.randn_like(v) for v in values)
    torch.testing.assert_close(
        jvp(lambda *v: ours(ids, *v), tuple(values), tangents),
        jvp(lambda *v: theirs(ids, *v), tuple(values), tangents),
    )
    ids[2, 1] = 27
    with pytest.raises(IndexError, match=r"embedding_linear_tanh: input.* is 27, expected 0 <= id"):
        vmap(lambda i: ours(i, *values))(ids)


def test_forward_mode_and_hessian():
    x, w = (torch.randn(s, dtype=torch.float64) for s in ((3, 4), (2, 4)))
    target = torch.randint(0, 4, (3,))

    def ours(x):
        return mlpkern.linear_tanh(x, w).sum() + mlpkern.cross_entropy(x, target)

    def theirs(x):
        return torch.tanh(F.linear(x, w)).sum() + F.cross_entropy(x, target)

    tangent = torch.randn_like(x)
    torch.testing.assert_close(jvp(ours, (x,), (tangent,)), jvp(theirs, (x,), (tangent,)))
    torch.testing.assert_close(hessian(ours)(x), hessian(theirs)(x))
    with forward_ad.dual_level():
        y = ours(forward_ad.make_dual(x, tangent))
        assert forward_ad.unpack_dual(y).tangent is not None


def test_functional_call_and_batched_backward():
    model = nn.Sequential(mlpkern.nn.EmbeddingGather(27, 10), mlpkern.nn.LinearTanh(30, 4))
    ids, _ = batch(5)
    other = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    output = functional_call(model, other, (ids,))
    expected = copy.deepcopy(model)
    expected.load_state_dict(other)
    torch.testing.assert_close(output, expected(ids).detach())
    output = model(ids)
    cotangents = torch.randn(3, *output.shape)
    weights = list(model.parameters())
    batched = torch.autograd.grad(
        output, weights, cotangents, is_grads_batched=True, retain_graph=True
    )
    for i, cotangent in enumerate(cotangents):
        single = torch.autograd.grad(output, weights, cotangent, retain_graph=True)
        torch.testing.assert_close([b[i] for b in batched], list(single))


def test_bad_ids_under_vmap_are_found():
    table = torch.randn(27, 4)
    ids = torch.tensor([[1, 2], [3, 27]])
    with pytest.raises(IndexError, match="is 27, expected 0 <= id < 27"):
        vmap(lambda i: mlpkern.embedding_gather(i, table))(ids)
