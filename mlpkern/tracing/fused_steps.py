"""A mark on a function: the steps of a model that it computes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MARK = "_mlpkern_steps"


def computes(*steps: str) -> Callable[[_Function], _Function]:
    """Mark an op, or the forward of a layer: it computes ``steps`` one after another.

    A step is "embedding", "join" (the embeddings of a row side by side), "linear" or "tanh". The
    arguments of an op are its input, then the parameters in the order of the steps.
    """

    def mark(function: _Function) -> _Function:
        setattr(function, _MARK, steps)
        return function

    return mark


def steps_of(function: Any) -> tuple[str, ...]:
    """The steps that ``function`` is marked with; none if it has no mark."""
    steps: tuple[str, ...] = getattr(function, _MARK, ())
    return steps
