"""JAX in processes of its own, because XLA's number of threads is fixed when it starts.

There is one process for each set of cores. It is started by the first row that needs it and holds
what the rows of a case load into it. A sample is taken inside it by the same timer, in turns with
those of all other providers.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.core.case import Unavailable
from bench.core.process import Process, ProcessError
from bench.core.providers import JAX, Prepared, Provider, named
from bench.core.timer import seconds_of

GPU_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# On a GPU memory is taken by and by, since torch's is on the same card, and the precision of
# products is that of the case's dtype.
GPU = {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
PLATFORMS = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "cuda float32": {**GPU, "JAX_DEFAULT_MATMUL_PRECISION": "highest"},
    "cuda tf32": {**GPU, "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32"},
}
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"

Make = Callable[..., Prepared]  # in the process, of the arguments of the row
Rows = Mapping[str, tuple[Make, tuple[Any, ...]]]


def why_not(device: str = "cpu") -> str:
    """Why there are no rows of JAX; empty where it runs."""
    if importlib.util.find_spec("jax") is None:
        return "not installed (pip install jax)"
    if device != "cpu" and not any(importlib.util.find_spec(name) for name in GPU_PLUGINS):
        return "jax has no GPU backend (pip install 'jax[cuda13]')"
    return ""


def jax_rows(
    rows: Rows, counts: Sequence[int], threads: int, device: str = "cpu"
) -> list[Provider]:
    """A provider for each of `rows` and number of threads, or one that says why there is none."""
    if reason := why_not(device):
        return [Provider("JAX", JAX, threads, partial(_refuse, reason), contextlib.nullcontext)]
    return [
        Provider(
            named(name, count, threads),
            JAX,
            count,
            partial(remote, make, arguments, first_cores(count), device),
            contextlib.nullcontext,
        )
        for name, (make, arguments) in rows.items()
        for count in counts
    ]


def remote(make: Make, arguments: tuple[Any, ...], cores: Sequence[int], device: str) -> Prepared:
    """What `make` prepares in the process of these cores, to be used from here."""
    loaded = Loaded(JaxProcess.on(tuple(cores), device), make, arguments)
    return Prepared(
        lambda: loaded.sample(1), loaded.results, loaded.units, loaded.close, loaded.sample
    )


def first_cores(count: int) -> list[int]:
    """That many of the cores that this process may use; of one the last, the least busy by habit.

    Where a system cannot bind a process to cores, their number alone counts.
    """
    usable = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(count)]
    )
    return usable[-1:] if count == 1 else usable[:count]


def _refuse(reason: str) -> Prepared:
    raise Unavailable(reason)


class JaxProcess(Process):
    """A process in which JAX uses these cores."""

    _running: ClassVar[dict[tuple[tuple[int, ...], str], JaxProcess]] = {}

    def __init__(self, cores: tuple[int, ...], device: str):
        environment = PLATFORMS[device]
        if len(cores) == 1:
            environment = environment | {"XLA_FLAGS": ONE_THREAD, "NPROC": "1"}
        super().__init__(_prepare, cores, environment=environment)
        self._last = 0
        try:
            self.receive()
        except BaseException:
            self.close()
            raise

    @classmethod
    def on(cls, cores: tuple[int, ...], device: str = "cpu") -> JaxProcess:
        """The process of these cores, started when there is none."""
        if (cores, device) not in cls._running:
            cls._running[cores, device] = cls(cores, device)
        return cls._running[cores, device]

    @classmethod
    def close_all(cls) -> None:
        """Ends all processes; a later row starts a fresh one."""
        while cls._running:
            cls._running.popitem()[1].close()

    def ask(self, *question: object) -> Any:
        try:
            self.send(question)
            return self.answer()
        except ProcessError:
            self.forget()
            raise

    def forget(self) -> None:
        """Later rows start a fresh process."""
        for place, process in list(self._running.items()):
            if process is self:
                del self._running[place]

    def answer(self) -> Any:
        """That to the question sent; what went wrong in the process is raised here."""
        answer, problem = self.receive()
        if problem:
            raise RuntimeError(problem)
        return answer

    def key(self) -> int:
        self._last += 1
        return self._last


atexit.register(JaxProcess.close_all)  # multiprocessing would wait for them


class Loaded:
    """What `make` prepared in a process."""

    def __init__(self, process: JaxProcess, make: Make, arguments: tuple[Any, ...]):
        self.process, self.key = process, process.key()
        self.units: int = process.ask("load", self.key, make, arguments)

    def sample(self, repeats: int) -> float:
        """Seconds of `repeats` calls, measured inside the process."""
        return float(self.process.ask("sample", self.key, repeats))

    def begin(self) -> None:
        """Starts one call; `process.answer` waits for its end."""
        self.process.send(("sample", self.key, 1))

    def results(self) -> tuple[Tensor, ...]:
        found = self.process.ask("results", self.key)
        return tuple(torch.from_numpy(a).to(getattr(torch, dtype)) for a, dtype in found)

    def close(self) -> None:
        with contextlib.suppress(ProcessError):  # it holds nothing any more
            self.process.ask("drop", self.key)


def _prepare(cores: tuple[int, ...]) -> Callable[[tuple[Any, ...]], tuple[Any, str]]:
    """In the process: what answers the questions of `Loaded`."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    import jax
    import numpy as np

    held: dict[int, Prepared] = {}

    def sample(call: Callable[[], object], repeats: int) -> float:
        last: list[object] = []  # calls may return before their results are there

        def once() -> None:
            last[:] = [call()]

        return seconds_of(once, repeats, lambda: jax.block_until_ready(last))

    def answer(asked: tuple[Any, ...]) -> Any:
        what, key, *more = asked
        if what == "load":
            make, arguments = more
            held[key] = make(*arguments)
            return held[key].units
        if what == "sample":
            return sample(held[key].call, *more)
        if what == "results":
            results = held[key].results()
            # NumPy has no bfloat16; float32 holds each exactly
            return [
                (np.array(r, dtype=np.float32), str(r.dtype).removeprefix("torch."))
                for r in results
            ]
        del held[key]
        gc.collect()
        jax.clear_caches()
        return None

    def safely(asked: tuple[Any, ...]) -> tuple[Any, str]:
        try:
            return answer(asked), ""
        except Exception as error:
            return None, f"{type(error).__name__}: {error}"

    return safely
