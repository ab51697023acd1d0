"""The transforms of ``torch.func``, forward-mode differentiation, and batched backward passes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from support.mlp_functions import batch, fused, parameters, stock
from support.op_problems import stock_pair as stock_layer
from torch import nn
from torch.func import functional_call, grad, hessian, jvp, vmap

import mlpkern


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
