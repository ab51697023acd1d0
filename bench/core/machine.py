"""Where and with what a result was measured: machine, versions, commit, date."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

from bench import ROOT


def describe(threads: int) -> dict[str, object]:
    """The machine: processor, cores this process may use, instruction set, memory, system."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": threads,
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "mlpkern_isa": mlpkern_isa(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
        if hasattr(os, "sysconf")
        else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(device: str = "cpu") -> dict[str, str | None]:
    """Versions of everything that had a part in the numbers."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mlpkern": _version("mlpkern"),
        "compiler": compiler(),
        **({"triton": _version("triton"), "nvcc": nvcc()} if device == "cuda" else {}),
    }


def now() -> str:
    """Date and time in UTC, to the second, ISO 8601."""
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat()


def commit() -> str | None:
    """`git describe` of the checkout this file lies in, else MLPKERN_COMMIT, else None."""
    named = os.environ.get("MLPKERN_COMMIT")  # of a copy of the tree without its repository
    if not (ROOT / ".git").exists():
        return named
    return (
        _first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]) or named
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model() -> str:
    """Name of the processor as the system gives it, with family and model where it is vague."""
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


def compiler() -> str | None:
    """First line of the C++ compiler's version: the one torch.compile uses here."""
    name = os.environ.get("CXX") or "g++"
    path = shutil.which(name)
    return _first_line([path, "--version"]) if path else None


def nvcc() -> str | None:
    """The release line of nvcc, where there is one."""
    path = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    done = subprocess.run([path, "--version"], capture_output=True, text=True) if path else None
    found = [part for line in (done.stdout.splitlines() if done else []) if "release" in line
             for part in line.split(", ") if part.startswith("V")]  # fmt: skip
    return found[0].removeprefix("V") if found else None


def command() -> str:
    """The command line of this run; of absolute paths, which are this machine's, the name alone."""
    arguments = (Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])
    return " ".join(["python", "bench/run.py", *arguments])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        module = __import__(package)
    except ImportError:
        return None
    return getattr(module, "__version__", None)


def _first_line(arguments: list[str]) -> str | None:
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    return lines[0].strip() if done.returncode == 0 and lines else None
