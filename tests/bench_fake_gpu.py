"""What the tests of the GPU's benchmark share: a stand-in for the card, and its limits."""

from __future__ import annotations

from dataclasses import replace

from bench_tiny import SETTINGS

from bench.cuda.limits import CudaLimits
from bench.gpu.rehearsal.stand_in import StandIn as FakeGpu
from bench.gpu.rehearsal.stand_in import StandInEvent as FakeEvent

__all__ = ["CUDA_SETTINGS", "FAST", "FakeEvent", "FakeGpu"]

FAST = CudaLimits(
    {"L2": 1e11, "DRAM": 1e10},
    {"L2": 1 << 20, "DRAM": 1 << 30},
    {"float32": 1e11, "tf32": 2e11, "bfloat16": 4e11, "float16": 4e11},
    4e-6,
    2e-6,
    {"1": 5e-6, "10": 1e-5, "40": 3e-5},
)
CUDA_SETTINGS = replace(SETTINGS, device="cuda")
