"""Where and with what a result was measured: machine, versions, commit, date.

Only the standard library is imported with this module: bench/gpu.sh uses it too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from bench import ROOT


def describe(threads: int) -> dict[str, object]:
    """The machine: CPU, cores this process may use, instruction sets, memory, system."""
    import torch

    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": threads,
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "mlpkern_isa": mlpkern_isa(),
        "isas": isas(),
        "memory_gb": memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(device: str = "cpu") -> dict[str, str | None]:
    """Versions of everything that had a part in the numbers."""
    import torch

    compiler = os.environ.get("CXX") or "g++"  # the one that torch.compile uses
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mlpkern": version("mlpkern"),
        "jax": version("jax"),
        "compiler": first_line(compiler, "--version"),
    }
    if device == "cuda":
        nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
        release = re.search(r"release.*V([\d.]+)", output(nvcc, "--version"))
        found |= {"triton": version("triton"), "nvcc": release[1] if release else None}
    return found


def now() -> str:
    """Date and time in UTC, to the second, ISO 8601."""
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat()


def commit() -> str | None:
    """`git describe` of the checkout this file lies in, else MLPKERN_COMMIT, else None."""
    named = os.environ.get("MLPKERN_COMMIT")  # of a copy of the tree without its repository
    if not (ROOT / ".git").exists():
        return named
    return first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags") or named


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)


def cpu_model() -> str:
    """Name of the CPU as the system gives it, with family and model where it is vague."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "family" in fields.get("cpu family", "family") or "model" not in fields:
        return name
    return f"{name}, family {fields['cpu family']} model {fields['model']}"


def mlpkern_isa() -> str | None:
    """Instruction set that the native library picked; None without the library."""
    try:
        from mlpkern import _C
    except ImportError:
        return None
    return str(_C.isa())


def isas() -> list[str]:
    """Instruction sets that the native library could run here, the widest first."""
    try:
        from mlpkern import _C
    except ImportError:
        return []
    return str(_C.isas_available()).split(",")


def command() -> str:
    """The command line of this run; of absolute paths, which are this machine's, the name alone."""
    arguments = (Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])
    return " ".join(["python", "bench/run.py", *arguments])


def version(package: str) -> str | None:
    """That of an installed package, or of one that lies on the path; None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        return getattr(importlib.import_module(package), "__version__", None)
    except ImportError:
        return None


def output(*command: str) -> str:
    """What a program prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def first_line(*command: str) -> str | None:
    return next(iter(output(*command).splitlines()), None)
