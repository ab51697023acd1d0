"""A few objects that are expensive to make, kept for the next call that wants the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """At most ``most`` objects, each under a key; the one that was not used for longest goes.

    An object belongs to one caller at a time: threads that want the same make one each, and the one
    given back last stays. What goes is closed by ``close``.
    """

    def __init__(self, most: int, close: Callable[[T], None]) -> None:
        self._most, self._close = most, close
        self._lock = threading.Lock()
        self._objects: dict[Hashable, T] = {}  # the one used last comes last

    @contextmanager
    def borrowed(self, key: Hashable, make: Callable[[], T]) -> Iterator[T]:
        """The object under ``key``, or a new one. After an exception it is not kept."""
        with self._lock:
            found = self._objects.pop(key, None)
        value = make() if found is None else found
        yield value
        with self._lock:
            gone = [self._objects.pop(key)] if key in self._objects else []
            self._objects[key] = value
            while len(self._objects) > self._most:
                gone.append(self._objects.pop(next(iter(self._objects))))
        for each in gone:
            self._close(each)

    def clear(self) -> bool:
        """Gives up what nobody uses now; whether there was anything."""
        with self._lock:
            gone = list(self._objects.values())
            self._objects.clear()
        for each in gone:
            self._close(each)
        return bool(gone)

    def __len__(self) -> int:
        return len(self._objects)
