"""Cases of embedding_gather: (N, T) ids into a (V, D) table, dense gradient of the table."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case, Cost, OpTable, Problem, itemsize, random_normal


def _case(
    vocabulary: int,
    width: int,
    rows: int,
    context: int,
    dtype: str = "float32",
    quick: bool = False,
) -> Case:
    sizes = {"V": vocabulary, "D": width, "N": rows, "T": context}
    shape = f"{vocabulary}x{width} ids {rows}x{context}"
    return Case("embedding_gather", shape, dtype, sizes, quick)


CASES = (
    _case(27, 10, 65536, 3, quick=True),  # 196,608 ids
    _case(50_000, 64, 100_000, 2),  # 200,000 ids
    _case(1_000_000, 64, 100_000, 2),  # 200,000 ids; the dense gradient is 256 MB
    _case(27, 10, 65536, 3, "bfloat16"),
)


def problem(case: Case) -> Problem:
    sizes, generator = case.sizes, case.generator()
    rows, context, width = sizes["N"], sizes["T"], sizes["D"]
    ids = torch.randint(sizes["V"], (rows, context), generator=generator)  # (N, T)
    weight = random_normal(case, generator, sizes["V"], width).requires_grad_()  # (V, D)
    upstream = random_normal(case, generator, rows, context * width)  # (N, T*D)
    return Problem((ids, weight), ("input", "weight"), (1,), upstream)


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


def fused(input: Tensor, weight: Tensor) -> Tensor:
    import mlpkern

    return mlpkern.embedding_gather(input, weight)


TABLE = OpTable("embedding_gather", CASES, problem, cost, stock, fused)
