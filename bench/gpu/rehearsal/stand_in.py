"""The CPU in the place of a GPU, so that the benchmark of a GPU runs anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from bench.core.device import Event, Graph


class StandInEvent:
    def record(self) -> None:
        self.at = time.perf_counter()

    def query(self) -> bool:
        return False

    def elapsed_time(self, other: Event) -> float:
        assert isinstance(other, StandInEvent)
        return 1e3 * (other.at - self.at)


class StandIn:
    """Work is done at once; a capture runs the call, a replay runs it again."""

    device = "cpu"
    name = "Fake GPU 1"

    def __init__(self, l2_bytes: int = 2048, memory_bytes: int = 1 << 30):
        self.l2_bytes, self.memory_bytes = l2_bytes, memory_bytes
        self.captures = self.synchronized = self.released = 0
        self.slept: list[float] = []

    def describe(self) -> dict[str, object]:
        return {"name": self.name, "capability": "0.0", "driver_version": "1"}

    def synchronize(self) -> None:
        self.synchronized += 1

    def event(self) -> Event:
        return StandInEvent()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def capture(self, call: Callable[[], Sequence[Tensor]]) -> Graph:
        self.captures += 1
        call()
        outputs = tuple(t.detach().clone() for t in call())

        def replay() -> None:
            for kept, fresh in zip(outputs, call(), strict=True):
                kept.copy_(fresh.detach())

        return Graph(replay, outputs)

    def release(self) -> None:
        self.released += 1
