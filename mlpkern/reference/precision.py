"""The dtype the reference computes in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

_HALF = (torch.bfloat16, torch.float16)


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32 for the two half dtypes (accumulation in float32), otherwise ``dtype`` itself."""
    return torch.float32 if dtype in _HALF else dtype


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` computing in the dtypes it is given: autocast was applied by its caller."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch._C._is_any_autocast_enabled():
            return function(*args, **kwargs)
        device = next(value.device.type for value in args if isinstance(value, torch.Tensor))
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return run
