"""The GPU as the benchmark sees it: everything it asks of torch.cuda goes through this file."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.core import machine
from bench.core.case import Unavailable
from bench.core.device import Event, Graph, first_line

WARM_UP = 3  # calls before a capture: lazy initialisation and autotuning may not be captured
L2_FALLBACK = 64 << 20
CLOCK_FALLBACK = 2e9


class Gpu:
    """The current CUDA device. Raises `Unavailable` where there is none."""

    device = "cuda"

    def __init__(self) -> None:
        if not torch.backends.cuda.is_built():
            raise Unavailable(f"torch {torch.__version__} is built without CUDA")
        try:
            torch.cuda.init()
        except Exception as error:
            raise Unavailable(f"no CUDA device: {first_line(error)}") from error
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.name: str = properties.name
        self.l2_bytes = int(getattr(properties, "L2_cache_size", 0)) or L2_FALLBACK
        self.memory_bytes = int(properties.total_memory)
        self.multiprocessors = int(properties.multi_processor_count)
        self.capability = f"{properties.major}.{properties.minor}"
        self._side = torch.cuda.Stream()  # one for all captures: each stream keeps freed memory
        self._clock = 1e3 * float(getattr(properties, "clock_rate", 0)) or CLOCK_FALLBACK

    def describe(self) -> dict[str, object]:
        """The GPU, its driver and clocks, as plain data."""
        return {
            "name": self.name,
            "capability": self.capability,
            "multiprocessors": self.multiprocessors,
            "l2_mb": round(self.l2_bytes / 1e6, 1),
            "memory_gb": round(self.memory_bytes / 1e9, 1),
            "cuda_of_torch": torch.version.cuda,
            **_driver(),
        }

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def event(self) -> Event:
        return torch.cuda.Event(enable_timing=True)

    def sleep(self, seconds: float) -> None:
        """Keeps the stream busy for about that long, without memory traffic."""
        torch.cuda._sleep(int(seconds * self._clock))

    def capture(self, call: Callable[[], Sequence[Tensor]]) -> Graph:
        """`call`, everything it launches on the current stream, as a CUDA graph.

        As torch.cuda.graph does it, less the collection of garbage before each capture, which a
        case with many copies of its inputs would pay for many times.
        """
        graph, side = torch.cuda.CUDAGraph(), self._side
        side.wait_stream(torch.cuda.current_stream())
        collecting = gc.isenabled()
        gc.disable()  # a graph that is destroyed while another is captured invalidates it
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    call()
                side.synchronize()
                graph.capture_begin()
                try:
                    outputs = tuple(t.detach() for t in call())
                except BaseException:
                    with contextlib.suppress(RuntimeError):  # it would hide what went wrong
                        graph.capture_end()
                    raise
                graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        torch.cuda.current_stream().wait_stream(side)
        return Graph(graph.replay, outputs)

    def release(self) -> None:
        """Frees the cached memory that is not in use."""
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def find_gpu(program: str) -> Gpu:
    """The GPU for a program; without one the program ends with status 2 and the reason."""
    try:
        return Gpu()
    except Unavailable as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _driver() -> dict[str, object]:
    """Driver and clocks as nvidia-smi gives them; empty without it."""
    fields = ("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit")
    query = ("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    line = machine.first_line(*query)
    names = (field.replace(".", "_") for field in fields)
    return dict(zip(names, line.split(", "), strict=False)) if line else {}
