"""Calls with an id out of range, on any device."""

from __future__ import annotations

from typing import Any

import mlpkern


def checked(function: Any, *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, and on a GPU the IndexError that a CPU raises in the call."""
    result = function(*args, **kwargs)
    mlpkern.check_errors()
    return result
