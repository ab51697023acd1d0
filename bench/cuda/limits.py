"""The limits of the GPU, measured in the same run as the providers.

    copy bandwidth   one tensor copied into another, bytes read + bytes written, for buffers that
                     stay in the L2 cache and of DRAM size
    matrix peak      the best flop rate of torch's own square matrix products of normal numbers
    launch           seconds that the CPU needs for one eager op on a few numbers
    kernel           seconds from one such kernel in a stream to the next, with the CPU far ahead
    graph            seconds of a replay of a CUDA graph of 1, 10 and 40 such kernels

Rates are the best sample seen, as befits a limit; the three overheads are medians.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from bench.core.case import DTYPES
from bench.core.device import Device
from bench.core.limits import MeasuredLimits
from bench.core.timer import LocalContestant, Timing, interleave
from bench.cuda.device_timer import DeviceContestant
from bench.cuda.providers import with_precision

WIDTH = 8192  # of the matrix products
DRAM_BYTES = 8 << 30  # source and destination together
NODES = (1, 10, 40)
SMALL = 32  # numbers of the kernel that overheads are measured with


@dataclass(frozen=True)
class CudaLimits(MeasuredLimits):
    """Measured limits of this GPU."""

    launch_s: float
    kernel_s: float
    graph_s: Mapping[str, float]  # number of kernels -> seconds of a replay


def measure(
    gpu: Device, *, dram_bytes: int = DRAM_BYTES, width: int = WIDTH, budget_s: float = 0.5
) -> CudaLimits:
    """Measures all limits, each for about `budget_s` seconds."""
    timed = partial(_timed, gpu, budget_s)
    sizes = {"L2": gpu.l2_bytes // 2, "DRAM": min(dram_bytes, gpu.memory_bytes // 4)}
    copy = {level: size / timed(_copy(gpu, size)).minimum for level, size in sizes.items()}
    flops = 2 * width**3
    peak = {}
    for name in ("float32", "tf32", "bfloat16", "float16"):
        with with_precision(name):
            peak[name] = flops / timed(_product(gpu, DTYPES[name], width)).minimum
    gpu.release()
    x = torch.ones(SMALL, device=gpu.device)
    small = partial(x.mul_, 1.0)
    launch = LocalContestant("launch", small, finish=gpu.synchronize)
    graphs = {}
    for nodes in NODES:
        graph = gpu.capture(lambda nodes=nodes: [small() for _ in range(nodes)])  # type: ignore[misc]
        graphs[str(nodes)] = LocalContestant("graph", graph.replay, finish=gpu.synchronize)
    return CudaLimits(
        copy,
        sizes,
        peak,
        interleave([launch], budget_s=budget_s)["launch"].median,
        timed(small).median,
        {
            nodes: interleave([replay], budget_s=budget_s)["graph"].median
            for nodes, replay in graphs.items()
        },
    )


def _timed(gpu: Device, budget_s: float, call: Callable[[], object]) -> Timing:
    contestant = DeviceContestant("limit", call, contextlib.nullcontext, gpu)
    return interleave([contestant], budget_s=budget_s)["limit"]


def _copy(gpu: Device, size: int) -> Callable[[], object]:
    source = torch.ones(size // 8, device=gpu.device)
    destination = torch.zeros_like(source)
    return lambda: destination.copy_(source)


def _product(gpu: Device, dtype: torch.dtype, width: int) -> Callable[[], object]:
    a, b = (torch.randn(width, width, device=gpu.device).to(dtype) for _ in range(2))
    return partial(torch.mm, a, b, out=torch.empty_like(a))
