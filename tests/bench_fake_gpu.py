"""A device that is no GPU: the processor in its place, so that the benchmark runs anywhere."""

from __future__ import annotations

import time
from dataclasses import replace

from bench_tiny import SETTINGS

from bench.cuda_limits import CudaLimits
from bench.gpu import Graph

FAST = CudaLimits(
    {"L2": 1e11, "DRAM": 1e10},
    {"L2": 1 << 20, "DRAM": 1 << 30},
    {"float32": 1e11, "tf32": 2e11, "bfloat16": 4e11, "float16": 4e11},
    4e-6,
    2e-6,
    {"1": 5e-6, "10": 1e-5, "40": 3e-5},
)


class FakeEvent:
    def record(self):
        self.at = time.perf_counter()

    def query(self):
        return False

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)


class FakeGpu:
    """Work is done at once; a capture runs the call, a replay runs it again."""

    device = "cpu"
    name = "Fake GPU 1"

    def __init__(self, l2_bytes=2048, memory_bytes=1 << 30):
        self.l2_bytes, self.memory_bytes = l2_bytes, memory_bytes
        self.captures = self.synchronized = self.released = 0
        self.slept = []

    def describe(self):
        return {"name": self.name, "capability": "0.0", "driver_version": "1"}

    def synchronize(self):
        self.synchronized += 1

    def event(self):
        return FakeEvent()

    def sleep(self, seconds):
        self.slept.append(seconds)

    def capture(self, call):
        self.captures += 1
        call()
        outputs = tuple(t.detach().clone() for t in call())

        def replay():
            for kept, fresh in zip(outputs, call(), strict=True):
                kept.copy_(fresh.detach())

        return Graph(replay, outputs)

    def release(self):
        self.released += 1


CUDA_SETTINGS = replace(SETTINGS, device="cuda")
