"""Which process is which: what tells one from another of the same number, here and elsewhere."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path

__all__ = ["host_name", "is_running", "machine", "start_of"]


def host_name() -> str:
    """The name of this machine, for a person to find it."""
    return platform.node() or "localhost"


@functools.cache
def machine() -> str:
    """What all processes share that can look each other up by number: one boot of one machine and,
    on Linux, one PID namespace (containers of a machine have their own). Empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return _output_of("sysctl", "-n", "kern.bootsessionuuid")  # macOS


def start_of(pid: int) -> str:
    """When the process began, as the system counts it, so that a later process with the same
    number differs; "ended" of one that only waits to be collected; empty where unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()  # proc(5)
    except (OSError, IndexError):
        on_linux = Path("/proc/self/stat").exists()
        return "" if on_linux else _output_of("ps", "-o", "lstart=", "-p", str(pid))


def is_running(pid: int, start: str) -> bool:
    """Whether the process that `start_of` described as ``start`` still runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    found = start_of(pid)
    return found != "ended" and (not found or not start or found == start)


def _output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join(done.stdout.split())
