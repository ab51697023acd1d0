"""``use_backend``: a backend that the caller names, for a statement, a block or a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from mlpkern.environment import named
from mlpkern.registry import require

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The blocks begun in this context, each with the name that holds again when it ends.
_blocks: ContextVar[tuple[tuple[use_backend, str], ...]] = ContextVar("mlpkern_blocks", default=())


class use_backend:
    """Run every op on the backend ``name`` from this call on; None ends the choice.

    Three forms, for the calling thread or asyncio task alone:

        use_backend("reference")  # from here on, until use_backend(None) or another name

        with use_backend("reference"):  # in the block; its end restores what held before
            ...

        @use_backend("reference")  # in each call of the function, which may be async
        def loss(x): ...

    The statement acts at once; inside a ``with`` block it ends with the block. The other two forms
    act on their block or their function only. An object that is kept, ``b = use_backend("cpu")``,
    has acted as a statement; it can be entered any number of times, also nested. A thread begins
    without a choice, an asyncio task with the choice of the code that starts it.

    After ``use_backend(None)`` the environment variable MLPKERN_BACKEND decides, which names a
    backend for the whole process and is read at the first call of each op, or else the device of
    the tensors. A backward runs on the backend of its forward.

    Raises, at this call, ValueError for a name that does not exist and RuntimeError for a backend
    that cannot run here. There is no fallback: a tensor on a device that ``name`` does not serve
    raises too. TypeError for decorating anything but a function, and for a generator function: its
    caller would also run on the backend between two values.
    """

    def __init__(self, name: str | None) -> None:
        if name is not None:
            require(name, "use_backend")
        self._name = name or ""
        self._before = named.get()
        # An object of its own, since another call may name the same backend.
        self._statement = _Statement(self._name)
        named.set(self._statement)

    def __enter__(self) -> None:
        _blocks.set((*_blocks.get(), (self, self._outside())))
        named.set(self._name)

    def __exit__(self, *_: object) -> None:
        blocks = _blocks.get()
        at = next((i for i in reversed(range(len(blocks))) if blocks[i][0] is self), None)
        if at is None:
            raise RuntimeError("use_backend: a with block must end in the thread where it began")
        _blocks.set(blocks[:at] + blocks[at + 1 :])
        named.set(blocks[at][1])

    def __call__(self, function: _Function) -> _Function:
        named.set(self._outside())
        if isinstance(function, type) or not callable(function):
            kind = function.__name__ if isinstance(function, type) else type(function).__name__
            raise TypeError(f"use_backend: can decorate functions only, got {kind}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"use_backend: cannot decorate the generator function {function.__qualname__}; "
                "use a with block inside it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast(_Function, run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return cast(_Function, run)

    def _outside(self) -> str:
        """The name that holds without this object's own statement."""
        name = named.get()
        return self._before if name is self._statement else name


class _Statement(str):
    """The name set by a plain call of `use_backend`; equal to other strings, but an object."""

    __slots__ = ()
