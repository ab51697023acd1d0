"""``linear_tanh`` in Triton's interpreter, with matrix products computed as tensor cores do.

The interpreter multiplies matrices in plain float32, which says nothing about the precision of the
split products ("tf32x3") on a GPU. Here they are computed as on sm_80 and newer: operands rounded
to 11 significant bits, and sums of 8 exact products truncated to float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.op_problems import stock_linear_tanh as stock
from support.tolerance import SLACK, compare

from mlpkern import linear_tanh, use_backend
from mlpkern.registry import backends

TERMS = 8  # of float32 numbers in one instruction


def rounded(x: np.ndarray) -> np.ndarray:
    """To the nearest TF32, ties away from zero: cvt.rna.tf32.f32."""
    bits = (np.ascontiguousarray(x).view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), bits.view(np.float32), x)


def cut(x: np.ndarray) -> np.ndarray:
    """float64 to float32, rounded towards zero."""
    nearest = x.astype(np.float32)
    return np.where(np.abs(nearest) > np.abs(x), np.nextafter(nearest, np.float32(0)), nearest)


def multiply_add(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    for k in range(0, a.shape[1], TERMS):
        exact = a[:, k : k + TERMS].astype(np.float64) @ b[k : k + TERMS].astype(np.float64)
        total = cut(total + exact)
    return total


def split_product(a: np.ndarray, b: np.ndarray, total: np.ndarray) -> np.ndarray:
    """total + a b as Triton compiles "tf32x3": the sum of a step is added once it is complete."""
    big_a, big_b = rounded(a), rounded(b)
    step = multiply_add(rounded(a - big_a), big_b, np.zeros_like(total))
    step = multiply_add(big_a, rounded(b - big_b), step)
    return total + multiply_add(big_a, big_b, step)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The depths of the products computed in this way."""
    status = backends()["triton"]
    if not status.available or "interpreter" not in status.detail:
        pytest.skip("Triton's interpreter is not in force")
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    depths: list[int] = []
    plain = interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, d: Any, precision: Any, *rest: Any) -> Any:
        if "x3" not in str(precision).lower():
            return plain(self, a, b, d, precision, *rest)
        depths.append(a.data.shape[1])
        return interpreter.TensorHandle(split_product(a.data, b.data, d.data), d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
    with use_backend("triton"):
        yield depths


@pytest.mark.parametrize(
    "size", [(32, 30, 200), (17, 19, 15), (64, 256, 31), (300, 33, 65)], ids=str
)
def test_as_good_as_torch(products, size):
    n, k, h = size
    compare(linear_tanh, stock, (torch.randn(n, k), torch.randn(h, k) / k**0.5, torch.randn(h)))
    assert products


def test_large_sums_of_few_terms(products):
    """Average errors over 20 draws of sums of 30 squares, in which torch's error is small."""
    errors = torch.zeros(4, 2, dtype=torch.float64)  # of output, dx, dw, db; ours and torch's
    for _ in range(20):
        x, b, grad = torch.randn(33, 30), torch.randn(7), torch.randn(33, 7)
        runs = []
        for function, dtype in ((linear_tanh, None), (stock, None), (stock, torch.float64)):
            leaves = [tensor.to(dtype, copy=True).requires_grad_() for tensor in (x, x[:7], b)]
            y = function(*leaves)
            runs.append((y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))))
        for i, (ours, torchs, exact) in enumerate(zip(*runs, strict=True)):
            errors[i] += torch.stack([(r - exact).abs().max() for r in (ours, torchs)])
    assert set(products) == {16}
    assert (errors[:, 0] <= SLACK * errors[:, 1]).all(), errors
