"""What `make triton-check` compiles: a row for every kernel, and the calls that launch them.

A new kernel needs a row in KERNELS, or the check fails; a call that launches it goes into CALLS.
Calls differ where the machine code does: in the way that is taken, dtypes, constants, alignment.
Nothing is computed, so sizes cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mlpkern.reference.cross_entropy import MEAN, NONE, SUM
from mlpkern.triton_kernels import backend as kernels


@dataclass(frozen=True)
class Row:
    """What the machine code of a kernel must keep to, for every dtype and configuration."""

    registers: int  # of a thread, at most: what was measured, and about a fifth more
    products: str = ""  # "tensor": tl.dot is on tensor cores; "exact": but IEEE float32 need not be
    float64: bool = False  # whether it may compute in float64


KERNELS = {
    "cross_entropy_forward_tile_kernel": Row(128),
    "cross_entropy_backward_tile_kernel": Row(144),
    "cross_entropy_forward_wide_kernel": Row(144),
    "cross_entropy_backward_wide_kernel": Row(192),
    "cross_entropy_finish_kernel": Row(128, float64=True),
    "embedding_gather_forward_kernel": Row(144),
    "embedding_gather_backward_small_kernel": Row(128, "exact"),
    "embedding_gather_backward_pieces_kernel": Row(80),
    "embedding_gather_backward_keys_kernel": Row(80),
    "embedding_gather_backward_segments_kernel": Row(96),
    "embedding_gather_backward_runs_kernel": Row(144),
    "linear_tanh_forward_kernel": Row(255, "exact"),
    "linear_tanh_backward_kernel": Row(255, "tensor"),
    "linear_tanh_epilogue_kernel": Row(128),
    "linear_tanh_slope_kernel": Row(128),
    "linear_tanh_pieces_kernel": Row(48),
}


def cross_entropy(
    N: int,
    V: int,
    dtype: torch.dtype,
    target: torch.dtype = torch.int64,
    reduction: int = MEAN,
    smoothing: float = 0.0,
    weighted: bool = False,
) -> None:
    x = torch.empty(N, V, dtype=dtype)
    goal = torch.empty((N, V) if target.is_floating_point else (N,), dtype=target)
    weight = torch.empty(V, dtype=dtype) if weighted else None
    options = (-100, reduction, smoothing)
    loss, lse, total = kernels.cross_entropy_forward(x, goal, weight, *options)
    kernels.cross_entropy_backward(torch.empty_like(loss), x, goal, weight, lse, total, *options)


def embedding_gather(
    N: int, V: int, D: int, dtype: torch.dtype, ids: torch.dtype = torch.int64
) -> None:
    positions, weight = torch.empty(N, 3, dtype=ids), torch.empty(V, D, dtype=dtype)
    output = kernels.embedding_gather_forward(positions, weight)
    kernels.embedding_gather_backward(torch.empty_like(output), positions, V, -1)


def linear_tanh(
    N: int, K: int, H: int, dtype: torch.dtype, precision: str = "highest", strided: bool = False
) -> None:
    torch.set_float32_matmul_precision(precision)
    x, weight, bias = (torch.empty(size, dtype=dtype) for size in ((N, K), (H, K), (H,)))
    if strided:
        x, weight = torch.empty(K, N, dtype=dtype).t(), torch.empty(K, H, dtype=dtype).t()
    y = kernels.linear_tanh_forward(x, weight, bias)
    grad = torch.empty((), dtype=dtype).expand_as(y) if strided else torch.empty_like(y)
    kernels.linear_tanh_backward(grad, x, weight, y, True, True, True)


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16

CALLS: dict[str, Callable[[], Any]] = {
    "cross_entropy, letters": partial(cross_entropy, 65536, 27, F32),
    "cross_entropy, a small batch of letters": partial(
        cross_entropy, 32, 27, BF16, torch.uint8, NONE, 0.1, weighted=True
    ),
    "cross_entropy, a row a tile": partial(cross_entropy, 4096, 4096, BF16, torch.int32, SUM),
    "cross_entropy, probabilities": partial(cross_entropy, 4096, 1000, F16, F16),
    "cross_entropy, wide": partial(cross_entropy, 4096, 50257, F32, weighted=True, smoothing=0.1),
    "cross_entropy, wide bfloat16": partial(cross_entropy, 4096, 32000, BF16),
    "cross_entropy, wide probabilities": partial(cross_entropy, 512, 32000, F32, F32),
    "embedding_gather, letters": partial(embedding_gather, 65536, 27, 10, F32),
    "embedding_gather, few ids": partial(embedding_gather, 32, 1000, 64, BF16, torch.uint8),
    "embedding_gather, words": partial(embedding_gather, 350_000, 32000, 64, F32),
    "embedding_gather, words bfloat16": partial(
        embedding_gather, 350_000, 32000, 256, BF16, torch.int32
    ),
    "linear_tanh, shallow": partial(linear_tanh, 4096, 10, 200, F32),
    "linear_tanh, lecture": partial(linear_tanh, 32, 30, 200, F32),
    "linear_tanh, lecture, all words": partial(linear_tanh, 65536, 30, 200, F32),
    "linear_tanh, lecture tf32": partial(linear_tanh, 65536, 30, 200, F32, "high"),
    "linear_tanh, lecture bfloat16": partial(linear_tanh, 65536, 30, 200, BF16),
    "linear_tanh, 200": partial(linear_tanh, 65536, 200, 200, F32),
    "linear_tanh, 256 tf32": partial(linear_tanh, 16384, 256, 256, F32, "high"),
    "linear_tanh, 200 bfloat16": partial(linear_tanh, 65536, 200, 200, BF16),
    "linear_tanh, odd": partial(linear_tanh, 1031, 27, 65, F32),
    "linear_tanh, odd bfloat16": partial(linear_tanh, 1031, 27, 65, BF16),
    "linear_tanh, strided": partial(linear_tanh, 1031, 65, 130, F32, strided=True),
    "linear_tanh, strided float16": partial(linear_tanh, 1031, 65, 130, F16, strided=True),
    "linear_tanh, wide": partial(linear_tanh, 256, 1024, 1024, F32),
    "linear_tanh, wide bfloat16": partial(linear_tanh, 256, 600, 1001, BF16),
}
