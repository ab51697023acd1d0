"""Cases of embedding_linear_tanh: (N, T) ids, (V, D) table, (H, T*D) weights, gradients of table,
weight and bias."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.case import Case, Cost, OpTable, Problem, itemsize, random_normal


def _case(N: int, T: int, V: int, D: int, H: int, dtype: str = "float32", **marks: bool) -> Case:
    sizes = {"N": N, "T": T, "V": V, "D": D, "H": H}
    return Case("embedding_linear_tanh", f"{N}x{T}x{D}->{H} V={V}", dtype, sizes, **marks)


CASES = (
    _case(32, 3, 27, 10, 200, quick=True),
    _case(4096, 3, 27, 10, 200, quick=True),
    _case(65536, 3, 27, 10, 200),
    _case(4096, 8, 5000, 32, 256, quick=True),
    _case(4096, 3, 27, 10, 200, "bfloat16"),
)


def problem(case: Case) -> Problem:
    """Weights scaled by 1/sqrt(T*D), so that tanh works in its curved range."""
    rows, context, outputs = case.sizes["N"], case.sizes["T"], case.sizes["H"]
    vocabulary, width = case.sizes["V"], case.sizes["D"]
    inputs = context * width
    generator = case.generator()
    ids = torch.randint(vocabulary, (rows, context), generator=generator)  # (N, T)
    embedding = random_normal(case, generator, vocabulary, width).requires_grad_()  # (V, D)
    weight = random_normal(case, generator, outputs, inputs).mul_(inputs**-0.5).requires_grad_()
    bias = random_normal(case, generator, outputs).mul_(0.1).requires_grad_()  # (H,)
    upstream = random_normal(case, generator, rows, outputs)  # (N, H)
    names = ("input", "embedding", "weight", "bias")
    return Problem((ids, embedding, weight, bias), names, (1, 2, 3), upstream)


def cost(case: Case) -> Cost:
    """The three products of the cheaper of two ways, 2·T·D·H flops a row: over the N rows of the
    batch, or folded, over the V rows of the table with N·T·H additions in both passes. Ids, table
    and weight are read by both passes, the output is written by one and read by the other; each
    gradient is written once. The embedded batch need not exist."""
    rows, context, outputs = case.sizes["N"], case.sizes["T"], case.sizes["H"]
    vocabulary, width = case.sizes["V"], case.sizes["D"]
    size = itemsize(case)
    ids, table = rows * context * 8, vocabulary * width * size
    weight, y = outputs * context * width * size, rows * outputs * size
    product = 2 * context * width * outputs
    folded = 3 * vocabulary * product + 2 * rows * context * outputs
    return Cost(
        bytes=2 * ids + 3 * table + 3 * weight + 3 * y + 2 * outputs * size,
        flops=min(3 * rows * product, folded),
        footprint=ids + 2 * table + 2 * weight + 2 * y,
        largest_output=max(table, y, weight),
    )


def stock(input: Tensor, embedding: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.tanh(F.linear(F.embedding(input, embedding).flatten(-2), weight, bias))


def in_jax(input: Any, embedding: Any, weight: Any, bias: Any) -> Any:
    import jax.numpy as jnp

    return jnp.tanh(embedding[input].reshape(len(input), -1) @ weight.T + bias)


TABLE = OpTable("embedding_linear_tanh", CASES, problem, cost, stock, jax={"JAX, gather": in_jax})
