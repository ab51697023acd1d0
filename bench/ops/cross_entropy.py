"""Cases of cross_entropy: mean loss over N rows of V logits, gradient of the logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.case import Case, Cost, OpTable, Problem, itemsize, random_normal
from bench.core.jax_ops import mean_loss


def _case(N: int, V: int, dtype: str = "float32", **marks: bool) -> Case:
    return Case("cross_entropy", f"{N}x{V}", dtype, {"N": N, "V": V}, **marks)


CASES = (
    _case(4096, 27, quick=True),
    _case(65536, 27),
    _case(4096, 1000, quick=True),
    _case(2048, 32000),
    _case(65536, 27, "bfloat16"),
    _case(4096, 1000, "bfloat16"),
    _case(2048, 32000, "bfloat16"),
)

CUDA_CASES = (
    _case(65536, 27, quick=True, rotate=True),
    _case(4096, 1000, quick=True, rotate=True),
    _case(16384, 32000, rotate=True),
    _case(16384, 32000, "bfloat16", quick=True, rotate=True),
    _case(8192, 128256, "bfloat16", rotate=True),
)


def problem(case: Case, device: str = "cpu") -> Problem:
    rows, classes = case.sizes["N"], case.sizes["V"]
    generator = case.generator(device)
    logits = random_normal(case, generator, rows, classes).requires_grad_()  # (N, V)
    target = torch.randint(classes, (rows,), generator=generator, device=device)  # (N,)
    upstream = torch.ones((), dtype=logits.dtype, device=device)
    return Problem((logits, target), ("input", "target"), (0,), upstream)


def cost(case: Case) -> Cost:
    """Forward reads the logits, backward reads them again and writes their gradient."""
    rows, classes = case.sizes["N"], case.sizes["V"]
    logits = rows * classes * itemsize(case)
    ids = rows * 8
    return Cost(bytes=3 * logits + 2 * ids, flops=0, footprint=2 * logits, largest_output=logits)


def stock(input: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(input, target)


def gathered_in_jax(input: Any, target: Any) -> Any:
    return mean_loss(input, target).astype(input.dtype)


def selected_in_jax(input: Any, target: Any) -> Any:
    """The logits of the targets by comparison with every symbol."""
    import jax
    import jax.numpy as jnp

    logits = input.astype(jnp.float32)  # (N, V)
    of_target = jnp.where(jnp.arange(logits.shape[1]) == target[:, None], logits, 0).sum(1)
    return (jax.nn.logsumexp(logits, 1) - of_target).mean().astype(input.dtype)


IN_JAX = {"JAX, gather": gathered_in_jax, "JAX, one-hot": selected_in_jax}
TABLE = OpTable("cross_entropy", CASES, problem, cost, stock, CUDA_CASES, IN_JAX)
