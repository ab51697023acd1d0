"""A small MLP as a function of its parameters, made of the ops and of stock torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from support.op_problems import stock_pair

import mlpkern


def parameters(device="cpu"):
    """The table of 27 rows, a layer of 40 units with its bias, the output layer."""
    shapes = [(27, 10), (40, 30), (40,), (27, 40)]
    return [(0.3 * torch.randn(s)).to(device).requires_grad_() for s in shapes]


def batch(n, device="cpu"):
    ids = torch.randint(0, 27, (n, 3), device=device)
    target = torch.randint(0, 27, (n,), device=device)
    return ids, target


def fused(ids, target, table, w, b, out, **options):
    h = mlpkern.linear_tanh(mlpkern.embedding_gather(ids, table), w, b)
    return mlpkern.cross_entropy(F.linear(h, out), target, **options)


def stock(ids, target, table, w, b, out, **options):
    h = stock_pair(ids, table, w, b)
    return F.cross_entropy(F.linear(h, out), target, **options)
