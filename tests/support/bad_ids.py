"""Calls with an id out of range, on any device."""

from __future__ import annotations

from typing import Any

import mlpkern


def checked(function: Any, *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, and of a GPU kernel the IndexError that a CPU raises at once.

    The kernels of Triton are such kernels in its interpreter too.
    """
    result = function(*args, **kwargs)
    mlpkern.check_errors()
    return result
