"""The identity of a process, by which it differs from another one with the same number."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path


def host_name() -> str:
    """The name of this machine, for messages."""
    return platform.node() or "localhost"


@functools.cache
def machine() -> str:
    """An identifier shared by all processes that can find each other by number: one boot of one
    machine and, on Linux, one PID namespace (each container has its own). Empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return _output_of("sysctl", "-n", "kern.bootsessionuuid")  # macOS


def start_of(pid: int) -> str:
    """When the process began, in the system's own count, so that a later process with the same
    number differs; "ended" for a zombie; empty if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()  # proc(5)
    except (OSError, IndexError):
        on_linux = Path("/proc/self/stat").exists()
        return "" if on_linux else _output_of("ps", "-o", "lstart=", "-p", str(pid))


def is_running(pid: int, start: str) -> bool:
    """Whether process ``pid``, for which `start_of` gave ``start``, still runs on this machine."""
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
