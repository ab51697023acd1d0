"""Kernels that the check must refuse, and some that it must not; prints what it says, as JSON.

tests/backends/test_triton_build.py runs this in a process of its own and knows what the check
should say of each.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cuda" / "machine_code"))
import machine_rules
import offline
import torch
import triton
import triton.language as tl
from kernel_calls import Row


@triton.jit
def product_kernel(
    a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr
):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    left = tl.load(a + m[:, None] * K + k[None, :])
    right = tl.load(b + n[None, :] * K + k[:, None])
    tl.store(c + m[:, None] * N + n[None, :], tl.dot(left, right, input_precision=PRECISION))


@triton.jit
def two_products_kernel(a, b, c, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    left = tl.load(a + i[:, None] * SIZE + i[None, :])
    right = tl.load(b + i[:, None] * SIZE + i[None, :])
    square = tl.dot(left, right, input_precision="tf32")
    square += tl.dot(right, left, input_precision="ieee")
    tl.store(c + i[:, None] * SIZE + i[None, :], square)


@triton.jit
def copy_kernel(a, c, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(c + i, tl.load(a + i))


@triton.jit
def atomic_kernel(a, c, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.atomic_add(c + i, tl.load(a + i))


@triton.jit
def float64_kernel(a, c, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(c + i, tl.load(a + i).to(tl.float64) * 1.1)


def product(m: int, n: int, k: int, dtype: torch.dtype, precision: str, warps: int = 4) -> None:
    a, b, c = torch.empty(m, k, dtype=dtype), torch.empty(n, k, dtype=dtype), torch.empty(m, n)
    product_kernel[(1,)](a, b, c, m, n, k, precision, num_warps=warps)


def vector(kernel: triton.JITFunction) -> None:
    kernel[(1,)](torch.empty(4096), torch.empty(4096), 4096)


def two_products() -> None:
    two_products_kernel[(1,)](*(torch.empty(64, 64) for _ in range(3)), 64)


ALL, F32, BF16 = offline.TARGETS, torch.float32, torch.bfloat16

CASES = {
    "spills": (partial(product, 256, 256, 64, BF16, "tf32"), Row(255, "tensor"), (80, 90)),
    "ieee": (partial(product, 64, 64, 32, F32, "ieee"), Row(255, "tensor"), ALL),
    "one of two": (two_products, Row(255, "tensor"), (80, 90)),
    "two warps": (partial(product, 64, 64, 64, BF16, "tf32", 2), Row(255, "tensor"), (90,)),
    "unspoken product": (partial(product, 64, 64, 64, BF16, "tf32"), Row(255), (90,)),
    "no product": (partial(vector, copy_kernel), Row(255, "tensor"), (90,)),
    "registers": (partial(vector, copy_kernel), Row(16), (80,)),
    "atomic": (partial(vector, atomic_kernel), Row(255), (90,)),
    "float64": (partial(vector, float64_kernel), Row(255), (90,)),
    "good product": (partial(product, 64, 64, 64, BF16, "tf32"), Row(255, "tensor"), (90, 100)),
    "good split": (partial(product, 64, 64, 32, F32, "tf32x3"), Row(255, "tensor"), ALL),
    "good exact": (partial(product, 64, 64, 32, F32, "ieee"), Row(255, "exact"), (90,)),
    "good copy": (partial(vector, copy_kernel), Row(255), (90,)),
}


def main() -> None:
    said = {}
    for name, (call, row, targets) in CASES.items():
        said[name] = {
            one.target: list(machine_rules.problems(one, row))
            for one in offline.compiled_by(call, targets)
        }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
