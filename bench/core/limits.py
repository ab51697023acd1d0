"""The limits of this machine, measured in the same run as the providers.

    copy bandwidth   one tensor copied into another, all threads, bytes read + bytes written, for
                     buffers that fit the L2 caches, that exceed them, and of DRAM size
    matrix peak      the best flop rate of torch's own square matrix products, float32 with one and
                     all threads, bfloat16 with all
    FMA peak         multiply-adds in registers, float32, by mlpkern's instruction set, with one and
                     all threads; without the native library the rate of the matrix products
    first touch      seconds per 4 KB page of memory fresh from the system, one thread

Each figure is the best sample seen, as befits a limit. The limit of a case is
max(bytes / bandwidth, flops / peak); `fraction_of_limit` is that over the measured time. A case in
cache is judged by the bandwidth of the cache that holds it.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.core.case import DTYPES, Cost
from bench.core.providers import with_threads
from bench.core.timer import LocalContestant, interleave, seconds_of

PAGE = 4096
L2_FALLBACK = 1 << 20
DRAM_BYTES = 1 << 30  # source and destination together
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Bound:
    """What a case cannot be faster than: by which resource, seconds, and in words."""

    by: str
    seconds: float
    text: str


@dataclass(frozen=True)
class MeasuredLimits:
    """Limits of a CPU or a GPU. Bandwidths are bytes per second, peaks flops per second."""

    copy: Mapping[str, float]  # level of memory, the smallest first -> bytes/s
    copy_bytes: Mapping[str, int]  # level -> bytes of source + destination it was measured with
    peak: Mapping[str, float]  # dtype -> flops/s of matrix products

    def level(self, footprint: int) -> str:
        """The smallest measured level of memory that holds `footprint` bytes."""
        holding = (name for name, size in self.copy_bytes.items() if footprint <= size)
        return next(holding, list(self.copy)[-1])

    def bound(self, dtype: str, cost: Cost) -> Bound:
        """What a case of this dtype and cost cannot be faster than."""
        level = self.level(cost.footprint)
        memory, arithmetic, peak = cost.bytes / self.copy[level], 0.0, ""
        if cost.flops:
            rate, peak = self.matrix_peak(dtype)
            arithmetic = cost.flops / rate
        if memory >= arithmetic:
            return Bound("memory", memory, f"{cost.bytes / 1e6:.4g} MB by copy bandwidth ({level})")
        return Bound("arithmetic", arithmetic, f"{cost.flops / 1e9:.4g} GFLOP by {peak}")

    def matrix_peak(self, dtype: str) -> tuple[float, str]:
        """The best rate of matrix products of this dtype, and its name."""
        return self.peak[dtype], f"{dtype} matrix peak"

    def peak_of(self, dtype: str, cores: int) -> float | None:
        """Flops per second of matrix products on that many cores (a GPU uses all of its own)."""
        return self.peak.get(dtype)

    def best_of(self, other: MeasuredLimits) -> MeasuredLimits:
        """The better of two measurements, figure by figure: higher rates, shorter times."""

        def better(name: str) -> Any:
            mine, its = getattr(self, name), getattr(other, name)
            choose = min if name.endswith("_s") else max
            if isinstance(mine, Mapping):
                return {key: choose(value, its[key]) for key, value in mine.items()}
            return choose(mine, its)

        return type(self)(**{field.name: better(field.name) for field in fields(self)})


@dataclass(frozen=True)
class Limits(MeasuredLimits):
    """Limits of this CPU: copies with all threads, `peak` also of "float32, 1 thread"."""

    threads: int
    first_touch_s: float  # per page
    fma: Mapping[str, float]  # flops/s of multiply-adds in registers: "1 thread", "all threads"

    def matrix_peak(self, dtype: str) -> tuple[float, str]:
        # bfloat16 products may also be done in float32, so the best rate is the limit
        rates = [self.peak[name] for name in {"float32", dtype} & self.peak.keys()]
        return max(*rates, self.fma["all threads"]), "FMA peak"

    def peak_of(self, dtype: str, cores: int) -> float | None:
        """That of multiply-adds in float32; None for other dtypes."""
        if dtype != "float32":
            return None
        return min(cores * self.fma["1 thread"], self.fma["all threads"])


def measure(
    threads: int, *, quick: bool = False, dram_bytes: int = DRAM_BYTES, budget_s: float = 0.6
) -> Limits:
    """Measures all limits with `threads` threads, each for about `budget_s` seconds."""
    l2 = cache_bytes(2) * threads
    sizes = {"L2": l2 // 2, "past L2": max(8 * l2, 32 << 20), "DRAM": dram_bytes}
    with with_threads(threads):
        copy = {level: _copy_bandwidth(size, budget_s) for level, size in sizes.items()}
        widths = (1024,) if quick else (1024, 2048)
        peak = {
            name: _matrix_peak(DTYPES[name], widths, budget_s) for name in ("float32", "bfloat16")
        }
    with with_threads(1):
        peak["float32, 1 thread"] = _matrix_peak(torch.float32, (1024,), budget_s)
    one = _fma_peak(1, budget_s) or peak["float32, 1 thread"]
    every = one if threads == 1 else _fma_peak(threads, budget_s) or peak["float32"]
    fma = {"1 thread": one, "all threads": every}
    return Limits(copy, sizes, peak, threads, first_touch_seconds(), fma)


def _fma_peak(threads: int, budget_s: float) -> float:
    """Flops per second of `threads` threads that each multiply and add in registers; 0 without the
    native library."""
    try:
        from mlpkern import _C
    except ImportError:
        return 0.0
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_C.fma_peak, [budget_s / 3] * threads))


def cache_bytes(level: int) -> int:
    """Bytes of cpu0's data cache of this level; a guess where the system does not say."""
    for index in sorted(CACHES.glob("index*")):
        try:
            if int((index / "level").read_text()) != level:
                continue
            if (index / "type").read_text().strip() == "Instruction":
                continue
            text = (index / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        return int(text.rstrip("KM")) << {"K": 10, "M": 20}.get(text[-1], 0)
    return L2_FALLBACK


def first_touch_seconds(size: int = 64 << 20) -> float:
    """Seconds per page to write once to memory that the system has just given."""
    samples = []
    for _ in range(3):
        with mmap.mmap(-1, size) as fresh:
            buffer = torch.frombuffer(fresh, dtype=torch.uint8)
            pages = buffer[::PAGE]
            samples.append(seconds_of(partial(pages.fill_, 1), 1))
            del pages, buffer  # the map cannot be closed while a tensor looks into it
    return min(samples) / (size // PAGE)


def _copy_bandwidth(size: int, budget_s: float) -> float:
    """Bytes per second, source and destination counted, of a warm copy of size/2 bytes."""
    source = torch.ones(size // 2, dtype=torch.uint8).view(torch.float32)
    destination = torch.empty_like(source).fill_(0)
    copy = LocalContestant("copy", lambda: destination.copy_(source))
    timing = interleave([copy], budget_s=budget_s, min_sample_s=5e-3, min_rounds=5)["copy"]
    return size / timing.minimum


def _matrix_peak(dtype: torch.dtype, widths: tuple[int, ...], budget_s: float) -> float:
    """Flops per second of the best square product."""
    best = 0.0
    for width in widths:
        a, b = (torch.randn(width, width).to(dtype) for _ in range(2))
        out = torch.empty(width, width, dtype=dtype)
        call = LocalContestant("mm", partial(torch.mm, a, b, out=out))
        timing = interleave([call], budget_s=budget_s, min_sample_s=5e-3, min_rounds=5)["mm"]
        best = max(best, 2 * width**3 / timing.minimum)
    return best
