"""Cases of linear_tanh: (N, K) by (H, K) weights, gradients of input, weight and bias."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.case import Case, Cost, OpTable, Problem, itemsize, random_normal


def _case(N: int, K: int, H: int, dtype: str = "float32", **marks: bool) -> Case:
    return Case("linear_tanh", f"{N}x{K}->{H}", dtype, {"N": N, "K": K, "H": H}, **marks)


CASES = (
    _case(32, 30, 200, quick=True),
    _case(4096, 30, 200, quick=True),
    _case(65536, 30, 200),
    _case(16384, 256, 256),
    _case(4096, 512, 512, quick=True),
    _case(4096, 1024, 1024),
    _case(4096, 30, 200, "bfloat16"),
    _case(16384, 256, 256, "bfloat16"),
    _case(4096, 1024, 1024, "bfloat16"),
)

CUDA_CASES = (
    _case(32, 30, 200, quick=True),
    _case(65536, 30, 200, rotate=True),
    _case(65536, 200, 200, "tf32", quick=True, rotate=True),
    _case(65536, 200, 200, quick=True, rotate=True),  # float32: products with its full accuracy
    _case(4096, 1024, 1024, "bfloat16", rotate=True),
)


def problem(case: Case, device: str = "cpu") -> Problem:
    """Weights scaled by 1/sqrt(K), so that tanh works in its curved range and is not saturated."""
    rows, inputs, outputs = case.sizes["N"], case.sizes["K"], case.sizes["H"]
    generator = case.generator(device)
    x = random_normal(case, generator, rows, inputs).requires_grad_()  # (N, K)
    weight = random_normal(case, generator, outputs, inputs).mul_(inputs**-0.5).requires_grad_()
    bias = random_normal(case, generator, outputs).mul_(0.1).requires_grad_()  # (H,)
    upstream = random_normal(case, generator, rows, outputs)  # (N, H)
    return Problem((x, weight, bias), ("input", "weight", "bias"), (0, 1, 2), upstream)


def cost(case: Case) -> Cost:
    """Three products of 2·N·K·H flops. Input and weight are read by both passes, the output is
    written by one and read by the other; each gradient is written once."""
    rows, inputs, outputs = case.sizes["N"], case.sizes["K"], case.sizes["H"]
    size = itemsize(case)
    x, weight, y = rows * inputs * size, inputs * outputs * size, rows * outputs * size
    return Cost(
        bytes=3 * x + 3 * weight + 3 * y + 2 * outputs * size,
        flops=6 * rows * inputs * outputs,
        footprint=2 * x + 2 * weight + 2 * y,
        largest_output=max(x, y, weight),
    )


def stock(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.tanh(F.linear(input, weight, bias))


def in_jax(input: Any, weight: Any, bias: Any) -> Any:
    import jax.numpy as jnp

    return jnp.tanh(input @ weight.T + bias)


TABLE = OpTable("linear_tanh", CASES, problem, cost, stock, CUDA_CASES, {"JAX": in_jax})
