"""The providers: what is timed on a case, and under which settings.

On a CPU: stock eager and torch.compile with one and all threads, torch.compile max-autotune, and
the backends of mlpkern. For cases with large outputs also stock under a malloc that keeps its
pages (in a process of its own, see keep_pages.py) and mlpkern without its output pool.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.core.accuracy import Yardstick
from bench.core.case import Settings, Unavailable
from bench.core.device import Device

STOCK = "stock"
JAX = "jax"
RIVALS = (STOCK, JAX)  # the best of their rows is what ours is compared with
STOCK_KEEPS_PAGES = "stock, malloc keeps pages"
STOCK_GRAPH = "stock, CUDA graph"
MLPKERN = "mlpkern"

OURS = "cpu"  # the row of the ratios: the compiled backend with all threads
MAX_AUTOTUNE = "max-autotune-no-cudagraphs"


Function = Callable[..., Tensor]
Switch = Callable[[], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True)
class Prepared:
    """A provider ready to run: the call to time, and the numbers by which it is judged."""

    call: Callable[[], object]
    results: Callable[[], tuple[Tensor, ...]]
    units: int = 1  # steps that one call makes; times are given per step
    close: Callable[[], None] | None = None  # when the case is done
    sample: Callable[[int], float] | None = None  # seconds of calls in another process


@dataclass(frozen=True)
class Provider:
    """A way to run a case. `make` prepares it (and compiles) while `switch` is active."""

    name: str
    kind: str
    threads: int
    make: Callable[[], Prepared]
    switch: Callable[[], contextlib.AbstractContextManager[object]]
    backend: str = ""
    cores: int = 0  # that it works on, where fewer than `threads`

    @property
    def cores_used(self) -> int:
        return self.cores or self.threads


@dataclass(frozen=True)
class Contest:
    """The providers of one case and the float64 numbers they are checked against.

    With `gpu`, calls return before their work is done.
    """

    providers: list[Provider]
    yardstick: Yardstick
    gpu: Device | None = None


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """torch uses `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_switch(count: int) -> Switch:
    return lambda: with_threads(count)


def backend_switch(name: str, threads: int, pool: bool = True) -> Switch:
    return lambda: with_backend(name, threads, pool)


@contextlib.contextmanager
def with_backend(name: str, threads: int, pool: bool = True) -> Iterator[None]:
    """mlpkern runs on backend `name`, with its output pool off where `pool` is False."""
    import mlpkern

    with with_threads(threads), mlpkern.use_backend(name):
        if pool:
            yield
            return
        native = _native()
        limit = int(native.cache_info()["limit_bytes"])
        native.set_cache_limit(0)
        try:
            yield
        finally:
            native.set_cache_limit(limit)


def _native() -> types.ModuleType:
    try:
        from mlpkern import _C
    except ImportError as error:
        raise Unavailable(f"the native library is not there: {error}") from error
    return _C


def compiled(function: Function, mode: str | None = None) -> Function:
    """torch.compile of a copy of `function` with its own code object.

    Dynamo keeps its compiled versions per code object and tries them one after the other; a copy
    makes sure that no provider pays for the guards of another.
    """
    copy = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return torch.compile(copy, dynamic=False, fullgraph=True, mode=mode)


def cpu_rows(
    stock: Function,
    fused: Function,
    prepare: Callable[[Function], Prepared],
    settings: Settings,
    compile_threads: list[int],
) -> list[Provider]:
    """Stock eager and compiled, then the backends of mlpkern, each as `prepare` makes it ready."""
    threads = settings.threads
    counts = sorted({1, threads})
    rows: list[Provider] = []

    def add(name: str, count: int, function: Function, backend: str = "") -> None:
        kind = MLPKERN if backend else STOCK
        switch = backend_switch(backend, count) if backend else threads_switch(count)
        rows.append(Provider(name, kind, count, partial(prepare, function), switch, backend))

    for count in counts:
        add(named("eager", count, threads), count, stock)
    for count in compile_threads:
        add(named("compile", count, threads), count, compiled(stock))
    if settings.autotune:
        add("compile max-autotune", threads, compiled(stock, MAX_AUTOTUNE))
    add("reference", threads, fused, "reference")
    for count in reversed(counts):
        add(named(OURS, count, threads), count, fused, "cpu")
    return rows


def named(base: str, count: int, threads: int) -> str:
    """The plain name is the default setting, all threads; the other one says what differs."""
    return base if count == threads else f"{base}, {count} thread"
