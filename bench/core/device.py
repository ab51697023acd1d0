"""What the benchmark needs of a GPU, so that the tests can give it a device that is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Event(Protocol):
    """A point in the stream: `query` says whether the GPU has passed it."""

    def record(self) -> object: ...
    def query(self) -> bool: ...
    def elapsed_time(self, other: Event) -> float: ...  # milliseconds


@dataclass(frozen=True)
class Graph:
    """A captured call. Each replay writes its results into the same tensors, `outputs`."""

    replay: Callable[[], object]
    outputs: tuple[Tensor, ...]


class Device(Protocol):
    """What the benchmark needs of a GPU; `bench.gpu.Gpu` is the real one."""

    device: str
    name: str
    l2_bytes: int
    memory_bytes: int

    def describe(self) -> dict[str, object]: ...
    def synchronize(self) -> None: ...
    def event(self) -> Event: ...
    def sleep(self, seconds: float) -> None: ...
    def capture(self, call: Callable[[], Sequence[Tensor]]) -> Graph: ...
    def release(self) -> None: ...


def answers(gpu: Device) -> bool:
    """Whether the GPU still takes work: a kernel that failed spoils it for the whole process."""
    try:
        gpu.synchronize()
    except Exception:
        return False
    return True


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
