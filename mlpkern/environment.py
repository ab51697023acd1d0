"""The environment variables that the kernels read, and what is wrong with their values.

    MLPKERN_BACKEND       cpu, cuda, triton or reference: see `mlpkern.use_backend`, which checks it
    MLPKERN_ISA           avx512, avx2 or baseline: the instruction set of the compiled CPU kernels
    MLPKERN_CACHE_LIMIT   bytes that the compiled kernels keep for reuse (1 GiB)
    MLPKERN_TRITON_TUNE   0: Triton kernels run in their first configuration, none is measured

An empty value is none. A value that means nothing is an error at the first call of an op, never a
silent default: a typing error would decide what a benchmark measures.
"""

from __future__ import annotations

import os

__all__ = ["cache_limit", "problems", "require", "triton_tune"]


def triton_tune() -> bool:
    """Whether Triton kernels choose among their configurations by measuring."""
    value = os.environ.get("MLPKERN_TRITON_TUNE") or "1"
    if value not in ("0", "1"):
        raise ValueError(f"MLPKERN_TRITON_TUNE must be 0 or 1, got {value!r}")
    return value == "1"


def cache_limit() -> int | None:
    """The bytes that MLPKERN_CACHE_LIMIT gives, or None."""
    value = os.environ.get("MLPKERN_CACHE_LIMIT")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and int(value[:20]) < 1 << 63):
        raise ValueError(
            f"MLPKERN_CACHE_LIMIT must be a number of bytes below 2^63 in digits, got {value!r}"
        )
    return int(value)


def _isa() -> None:
    try:
        from mlpkern import cpu
    except ImportError:  # an installation without compiled kernels, which alone read it
        return
    if problem := cpu.isa_problem():
        raise ValueError(problem)


def problems() -> list[str]:
    """What is wrong with the values, a line for each variable; empty if they are right."""
    found = []
    for check in (_isa, cache_limit, triton_tune):
        try:
            check()
        except ValueError as error:
            found.append(str(error))
    return found


def require() -> None:
    """ValueError for the first wrong value."""
    for problem in problems():
        raise ValueError(problem)
