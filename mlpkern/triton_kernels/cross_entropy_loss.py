"""What the kernels of ``cross_entropy`` share: targets, the factor of a gradient, the last sum.

With e the smoothing, C classes, w their weights and q the probabilities of a row, all kernels work
with two numbers, ``own = 1 - e`` and ``even = e / C``::

    ids:            loss = own w[t] (-logp[t]) + even * sum over c of w[c] (-logp[c])
    probabilities:  loss = sum over c of a[c] (-logp[c]),  a[c] = w[c] (own q[c] + even)

Every sum of a[c] (-logp[c]) is computed as  s * sum of a[c] - sum of a[c] z[c]  with z = x - m,
so that no more than z is needed of the logits before their sum s is known.
"""

from __future__ import annotations

import triton
import triton.language as tl

NONE = tl.constexpr(0)  # reductions, see mlpkern.reference.cross_entropy
MEAN = tl.constexpr(1)


@triton.jit
def class_of(target, ignore_index, C):
    """(class or 0, whether it counts, whether it is out of range) of targets just read."""
    id = target.to(tl.int64)  # before comparing: in uint8, -100 would be 156
    ignored = id == ignore_index
    bad = ((id < 0) | (id >= C)) & ~ignored
    counted = ~ignored & ~bad
    return tl.where(counted, id, 0), counted, bad


@triton.jit
def shared_factor(grad, total, REDUCTION: tl.constexpr):
    """What multiplies the gradient of every row where one loss stands for all."""
    factor = tl.load(grad).to(tl.float32)
    return factor / tl.load(total) if REDUCTION == MEAN else factor


@triton.jit
def cross_entropy_finish_kernel(
    partial,  # (2, P) float32: sums of losses, sums of weights
    loss,
    total,
    P,
    N,
    REDUCTION: tl.constexpr,
    PROBABILITIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sums over all programs, by one."""
    i = tl.arange(0, BLOCK)
    losses = tl.zeros([BLOCK], tl.float64)
    weights = tl.zeros([BLOCK], tl.float64)
    for start in range(0, P, BLOCK):
        there = start + i < P
        losses += tl.load(partial + start + i, mask=there, other=0).to(tl.float64)
        weights += tl.load(partial + P + start + i, mask=there, other=0).to(tl.float64)
    finish(loss, total, tl.sum(losses), tl.sum(weights), N, REDUCTION, PROBABILITIES)


@triton.jit
def finish(loss, total, losses, weights, N, REDUCTION: tl.constexpr, PROBABILITIES: tl.constexpr):
    """Write the loss, unless there is one for each row, and the denominator of its mean."""
    denominator = weights
    if PROBABILITIES:
        denominator = tl.full([], 0, weights.dtype) + N
    tl.store(total, denominator.to(tl.float32))
    if REDUCTION == MEAN:
        losses = losses / denominator
    if REDUCTION != NONE:
        tl.store(loss, losses.to(tl.float32).to(loss.dtype.element_ty))
