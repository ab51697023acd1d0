"""What a call takes from its surroundings: environment variables, and the backend that is named.

    MLPKERN_BACKEND       cpu, cuda, triton or reference: see `mlpkern.use_backend`
    MLPKERN_ISA           avx512, avx2, baseline or neon: the instruction set of the CPU kernels
    MLPKERN_CACHE_LIMIT   bytes that the compiled kernels keep for reuse (1 GiB)
    MLPKERN_TRITON_TUNE   0: Triton kernels run in their first configuration, none is measured

An empty value counts as unset. A value that means nothing is an error at the first call of an op,
never a silent default: a typing error would decide what a benchmark measures. This file knows what
`cache_limit` and `triton_tune` may be; `mlpkern.registry` knows the backends, and the compiled
library its instruction sets.
"""

from __future__ import annotations

import os
from contextvars import ContextVar

BACKEND = "MLPKERN_BACKEND"

#: The backend that `mlpkern.use_backend` names for this thread or asyncio task; "" for none.
named: ContextVar[str] = ContextVar("mlpkern_backend", default="")


def backend() -> str:
    """The backend that MLPKERN_BACKEND names, or ""."""
    return os.environ.get(BACKEND, "")


def named_backend() -> tuple[str, str]:
    """The backend that this call is to run on, "" for none, and what names it."""
    name = named.get()
    return (name, "use_backend") if name else (backend(), BACKEND)


def triton_tune() -> bool:
    """Whether Triton kernels choose among their configurations by measuring."""
    value = os.environ.get("MLPKERN_TRITON_TUNE") or "1"
    if value not in ("0", "1"):
        raise ValueError(f"MLPKERN_TRITON_TUNE must be 0 or 1, got {value!r}")
    return value == "1"


def cache_limit() -> int | None:
    """The number of bytes in MLPKERN_CACHE_LIMIT, or None."""
    value = os.environ.get("MLPKERN_CACHE_LIMIT")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and int(value[:20]) < 1 << 63):
        raise ValueError(
            f"MLPKERN_CACHE_LIMIT must be a number of bytes below 2^63 in digits, got {value!r}"
        )
    return int(value)


def problems() -> list[str]:
    """What is wrong with the values of the variables that this file reads, a line for each."""
    found = []
    for check in (cache_limit, triton_tune):
        try:
            check()
        except ValueError as error:
            found.append(str(error))
    return found
