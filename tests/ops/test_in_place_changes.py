"""Tensors changed in place between forward and backward: the old gradient or an error.

A gradient of the changed values would be wrong. `STRICTER` lists where an op raises and stock torch
does not, as docs/guide/backends.md explains. Where stock torch raises, an op need not.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import mlpkern
from mlpkern.registry import has_op

V, D, T, H, N = 7, 3, 2, 5, 6

OPS = {
    "embedding_gather": (
        ("ids", "table"),
        mlpkern.embedding_gather,
        lambda ids, table: F.embedding(ids, table).flatten(-2),
    ),
    "linear_tanh": (
        ("x", "weight", "bias"),
        mlpkern.linear_tanh,
        lambda x, weight, bias: torch.tanh(F.linear(x, weight, bias)),
    ),
    "embedding_linear_tanh": (
        ("ids", "table", "weight", "bias"),
        mlpkern.embedding_linear_tanh,
        lambda ids, table, weight, bias: torch.tanh(
            F.linear(F.embedding(ids, table).flatten(-2), weight, bias)
        ),
    ),
    "cross_entropy": (
        ("logits", "targets", "classes"),
        mlpkern.cross_entropy,
        F.cross_entropy,
    ),
    "cross_entropy_of_shares": (("logits", "shares"), mlpkern.cross_entropy, F.cross_entropy),
}
IDS = {"ids", "targets"}
FLOATS = {"table": (V, D), "x": (N, T * D), "weight": (H, T * D), "bias": (H,), "logits": (N, V)}
# (op, what is changed), where every floating argument requires a gradient
STRICTER = {
    ("cross_entropy", "logits"),
    ("cross_entropy_of_shares", "logits"),
    ("embedding_linear_tanh", "table"),
}
# (op, what is changed, the one argument that requires a gradient)
STRICTER_ALONE = {
    ("linear_tanh", "weight", "weight"),
    ("linear_tanh", "weight", "bias"),
    ("linear_tanh", "x", "x"),
    ("linear_tanh", "x", "bias"),
    ("embedding_linear_tanh", "weight", "weight"),
    ("embedding_linear_tanh", "weight", "bias"),
    ("embedding_linear_tanh", "table", "weight"),
    ("embedding_linear_tanh", "table", "bias"),
    ("embedding_linear_tanh", "table", "table"),
    ("embedding_linear_tanh", "ids", "weight"),
    ("embedding_linear_tanh", "ids", "bias"),
    ("cross_entropy", "logits", "logits"),
    ("cross_entropy_of_shares", "logits", "logits"),
}


def values(names):
    generator = torch.Generator().manual_seed(5)
    given = {}
    for name in names:
        if name in IDS:
            shape = (N, T) if name == "ids" else (N,)
            given[name] = torch.randint(V, shape, generator=generator)
        elif name == "shares":
            given[name] = torch.rand(N, V, generator=generator).softmax(1)
        elif name == "classes":
            given[name] = torch.rand(V, generator=generator) + 0.5
        else:
            given[name] = torch.randn(FLOATS[name], generator=generator)
    return given


def gradients(op, names, changed, needs, device):
    """The gradients of the arguments ``needs`` when ``changed`` is changed after the forward."""
    given = {name: tensor.to(device) for name, tensor in values(names).items()}
    leaves = [given[name].requires_grad_() for name in needs]
    output = op(*given.values())
    product = (output * output.detach().clone()).sum()
    if changed:
        tensor = output if changed == "output" else given[changed]
        with torch.no_grad():
            tensor.copy_((tensor + 1) % V if changed in IDS else tensor * 0.5 + 0.1)
    return torch.autograd.grad(product, leaves)


def outcome(op, names, changed, needs, device, expected):
    try:
        found = gradients(op, names, changed, needs, device)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return "raises"
    for got, true in zip(found, expected, strict=True):
        torch.testing.assert_close(got.cpu(), true, rtol=2e-4, atol=2e-5)
    return "works"


def stricter(name, ours, stock, needs, device):
    """The changes after which only ``ours`` raises; after all others both agree."""
    names, found = OPS[name][0], set()
    expected = gradients(stock, names, None, needs, "cpu")
    for changed in (*names, "output"):
        theirs = outcome(stock, names, changed, needs, "cpu", expected)
        mine = outcome(ours, names, changed, needs, device, expected)
        if (mine, theirs) == ("raises", "works"):
            found.add((name, changed))
    return found


def allowed(entries, name, device):
    """The ``entries`` that hold for the op ``name`` on the device."""
    kept = device == "cpu" and name.startswith("cross_entropy")  # computed in the forward
    return set() if kept else {entry for entry in entries if entry[0] == name}


def differentiable(name):
    return [n for n in OPS[name][0] if n not in IDS | {"classes", "shares"}]


@pytest.mark.parametrize("name", list(OPS))
def test_every_argument_and_the_output(name, backend, device):
    if not has_op(backend, name.removesuffix("_of_shares")):
        pytest.skip(f"backend {backend} has no {name}")
    _, ours, stock = OPS[name]
    found = stricter(name, ours, stock, differentiable(name), device)
    assert found == allowed(STRICTER, name, device)
    for alone in differentiable(name):
        found = {(*pair, alone) for pair in stricter(name, ours, stock, [alone], device)}
        assert found == {e for e in allowed(STRICTER_ALONE, name, device) if e[2] == alone}


@pytest.mark.parametrize("name", list(OPS))
def test_after_a_compiled_function(name):
    _, ours, stock = OPS[name]
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    found = stricter(name, compiled, stock, differentiable(name), "cpu")
    assert found <= {pair for pair in STRICTER if pair[0] == name}


def test_a_change_of_the_logits_within_a_compiled_function_raises_too():
    def changed(logits, targets):
        logits = logits * 1
        value = mlpkern.cross_entropy(logits, targets)
        logits.zero_()
        return value

    given = values(("logits", "targets"))
    logits = given["logits"].requires_grad_()
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.compile(changed, fullgraph=True, backend="aot_eager")(logits, given["targets"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1.0, -0.3])
def test_logits_that_change_before_the_backward(dtype, reduction, scale):
    given = values(("logits", "targets", "classes"))
    options = {"weight": given["classes"].to(dtype), "label_smoothing": 0.1, "ignore_index": 2}
    results = []
    for op in (mlpkern.cross_entropy, F.cross_entropy):
        leaf = given["logits"].to(dtype).requires_grad_()
        logits = leaf * 2
        loss = op(logits, given["targets"], reduction=reduction, **options) * scale
        logits.detach().zero_()
        loss.backward()
        results.append(leaf.grad)
    torch.testing.assert_close(*results)


def test_what_the_logits_are_still_needed_for_raises():
    given = values(("logits", "targets"))
    for dtype, options in ((torch.float32, {"reduction": "none"}), (torch.bfloat16, {})):
        logits = given["logits"].to(dtype).requires_grad_() * 1
        loss = mlpkern.cross_entropy(logits, given["targets"], **options).sum()
        logits.detach().zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    leaf = given["logits"].requires_grad_()
    logits = leaf * 1
    loss = mlpkern.cross_entropy(logits, given["targets"])
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (again,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    assert torch.equal(first, again)
    logits.detach().zero_()
    for create_graph in (False, True):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(loss, leaf, retain_graph=True, create_graph=create_graph)


@pytest.mark.parametrize("scale", [torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_spares_ignored_rows(scale):
    given = values(("logits", "targets"))
    given["targets"][2] = -100
    results = []
    for op in (mlpkern.cross_entropy, F.cross_entropy):
        logits = given["logits"].clone().requires_grad_()
        (op(logits, given["targets"]) * scale).backward()
        assert not logits.grad[2].any()
        results.append(logits.grad.isfinite())
    assert torch.equal(*results)
