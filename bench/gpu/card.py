"""What is here: the GPU and its limits, clocks, driver, versions, the CPU.

    python -m bench.gpu.card [--out FILE]

The attributes are asked of the driver: torch does not know how much of a block's shared memory the
driver keeps for itself. Exit status 1 without a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from bench.core import machine
from bench.core.case import Unavailable
from bench.core.files import keep_data
from bench.cuda.gpu import Gpu

# CUdevice_attribute of cuda.h
ATTRIBUTES = {
    "multiprocessors": 16,
    "registers of a multiprocessor": 82,
    "shared memory of a multiprocessor": 81,
    "shared memory of a block": 8,
    "shared memory of a block, opt-in": 97,
    "shared memory of a block, reserved": 111,
    "L2 bytes": 38,
    "clock kHz": 13,
    "memory clock kHz": 36,
}
PACKAGES = "torch triton numpy jax setuptools cmake ninja pybind11 pytest pytest-xdist matplotlib"
TOOLS = "nvcc g++ cmake ninja ncu compute-sanitizer cuobjdump"
CLOCKS = "clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit,mig.mode.current"


def driver_attributes(device: int = 0) -> dict[str, int]:
    """The attributes of the GPU; empty where the driver does not answer."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {}
    found = {}
    if driver.cuInit(0) == 0:
        for name, number in ATTRIBUTES.items():
            value = ctypes.c_int()
            if driver.cuDeviceGetAttribute(ctypes.byref(value), number, device) == 0:
                found[name] = value.value
    return found


def tool_version(name: str) -> str:
    """The line of a tool's --version that has the version; "missing" without the tool."""
    if not shutil.which(name):
        return "missing"
    lines = [line.strip() for line in machine.output(name, "--version").splitlines()]
    versions = [line for line in lines if "ersion" in line or "release" in line or "V1" in line]
    return next(iter([*versions, *lines]), "says nothing")[:80]


def clocks() -> str:
    query = ("nvidia-smi", f"--query-gpu={CLOCKS}", "--format=csv,noheader")
    return machine.first_line(*query) or "unknown"


def facts(gpu: Gpu) -> dict[str, Any]:
    return {
        "date": machine.now(),
        "commit": machine.commit(),
        "gpu": gpu.describe(),
        "attributes": driver_attributes(),
        "clocks": clocks(),
        "python": sys.version.split()[0],
        "cuda of torch": torch.version.cuda,
        "packages": {name: machine.version(name) or "missing" for name in PACKAGES.split()},
        "tools": {name: tool_version(name) for name in TOOLS.split()},
        "CPU": f"{machine.cpu_model()}, {machine.usable_cores()} cores",
        "memory GB": machine.memory_gb(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The facts, a line for each group of them."""
    shown = []
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items() if part is not None)
        shown.append(f"• {name}: {value or 'unknown'}")
    return shown


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What is here.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the facts as JSON")
    options = parser.parse_args(arguments)
    try:
        found = facts(Gpu())
    except Unavailable as error:
        print(f"• no GPU: {error}")
        return 1
    print("\n".join(lines(found)))
    if options.out:
        keep_data(found, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
