"""Time on the GPU alone, by events: a contestant beside the one for the time that a user sees.

The stream sleeps first, long enough for the CPU to enqueue all calls of a sample behind the sleep.
So the events at both ends see the kernels back to back, without the CPU's time for launching them.
Where the GPU reaches the first event before the last call is enqueued, launches are part of the
sample: `exposed` counts such samples (a call that waits for the GPU always makes one).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.core.device import Device

CALLS = 10  # a sample; their launches have to fit the queue of the stream, about a thousand
LONGEST_SLEEP_S = 20e-3


@dataclass
class DeviceContestant:
    """A call, timed by events."""

    name: str
    call: Callable[[], object]
    switch: Callable[[], contextlib.AbstractContextManager[object]]
    gpu: Device
    calls: int = CALLS
    sleep_s: float = 200e-6
    samples: int = 0
    exposed: int = 0

    def active(self) -> contextlib.AbstractContextManager[object]:
        return self.switch()

    def sample(self, repeats: int) -> float:
        start, stop = self.gpu.event(), self.gpu.event()
        self.gpu.synchronize()
        self.gpu.sleep(self.sleep_s)
        start.record()
        before = time.perf_counter()
        for _ in range(repeats):
            self.call()
        enqueuing = time.perf_counter() - before
        passed = start.query()
        stop.record()
        self.gpu.synchronize()
        self.samples += 1
        self.exposed += passed
        if passed or 1.5 * enqueuing > self.sleep_s:
            self.sleep_s = min(max(1.5 * enqueuing, 1.5 * self.sleep_s), LONGEST_SLEEP_S)
        return start.elapsed_time(stop) * 1e-3

    @property
    def mostly_exposed(self) -> bool:
        return 2 * self.exposed > self.samples
