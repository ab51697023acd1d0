"""Cases of embedding_gather: (N, T) ids into a (V, D) table, dense gradient of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.core.case import Case, Cost, OpTable, Problem, Unavailable, itemsize, random_normal


@dataclass(frozen=True)
class EmbeddingCase(Case):
    """Sizes V, D, N, T; `zipf` ids: the r-th most frequent of them has a share of 1 / r."""

    zipf: bool = False


def _case(
    V: int, D: int, N: int, T: int, dtype: str = "float32", zipf: bool = False, **marks: bool
) -> EmbeddingCase:
    sizes = {"V": V, "D": D, "N": N, "T": T}
    shape = f"{V}x{D} {'Zipf ids' if zipf else 'ids'} {N}x{T}"
    return EmbeddingCase("embedding_gather", shape, dtype, sizes, zipf=zipf, **marks)


CASES = (
    _case(27, 10, 65536, 3, quick=True),  # 196,608 ids
    _case(50_000, 64, 100_000, 2),  # 200,000 ids
    _case(1_000_000, 64, 100_000, 2),  # 200,000 ids; the dense gradient is 256 MB
    _case(27, 10, 65536, 3, "bfloat16"),
)

CUDA_CASES = (  # 1,048,576 ids each
    _case(27, 10, 262_144, 4, quick=True, rotate=True),
    _case(32_000, 64, 524_288, 2, rotate=True),
    _case(32_000, 64, 524_288, 2, quick=True, rotate=True, zipf=True),
)


def problem(case: Case, device: str = "cpu") -> Problem:
    sizes, generator = case.sizes, case.generator(device)
    rows, context, width = sizes["N"], sizes["T"], sizes["D"]
    ids = _ids(case, generator)  # (N, T)
    weight = random_normal(case, generator, sizes["V"], width).requires_grad_()  # (V, D)
    upstream = random_normal(case, generator, rows, context * width)  # (N, T*D)
    return Problem((ids, weight), ("input", "weight"), (1,), upstream)


def _ids(case: Case, generator: torch.Generator) -> Tensor:
    classes, shape = case.sizes["V"], (case.sizes["N"], case.sizes["T"])
    device = generator.device
    if not (isinstance(case, EmbeddingCase) and case.zipf):
        return torch.randint(classes, shape, generator=generator, device=device)
    shares = 1 / torch.arange(1, classes + 1, dtype=torch.float64, device=device)
    rank = torch.multinomial(
        shares, shape[0] * shape[1], replacement=True, generator=generator
    ).view(shape)
    # the frequent ids are spread over the table, as in a vocabulary that is not sorted
    return torch.randperm(classes, generator=generator, device=device)[rank]


def cost(case: Case) -> Cost:
    """Forward reads ids and the rows in use and writes the output; backward reads ids and the
    upstream gradient and writes the whole dense gradient."""
    sizes, size = case.sizes, itemsize(case)
    ids = sizes["N"] * sizes["T"]
    output = ids * sizes["D"] * size
    table = sizes["V"] * sizes["D"] * size
    rows_read = min(ids, sizes["V"]) * sizes["D"] * size
    return Cost(
        bytes=2 * ids * 8 + rows_read + 2 * output + table,
        flops=0,
        footprint=ids * 8 + rows_read + 2 * output + table,
        largest_output=max(output, table),
    )


def stock(input: Tensor, weight: Tensor) -> Tensor:
    return F.embedding(input, weight).flatten(-2)


def gathered_in_jax(input: Any, weight: Any) -> Any:
    return weight[input].reshape(len(input), -1)


def product_in_jax(input: Any, weight: Any) -> Any:
    """The one-hot matrix of the ids times the table."""
    import jax

    if len(weight) > 1024:
        raise Unavailable("the one-hot matrix is too large")
    return (jax.nn.one_hot(input, len(weight), dtype=weight.dtype) @ weight).reshape(len(input), -1)


IN_JAX = {"JAX, gather": gathered_in_jax, "JAX, one-hot": product_in_jax}
TABLE = OpTable("embedding_gather", CASES, problem, cost, stock, CUDA_CASES, IN_JAX)
