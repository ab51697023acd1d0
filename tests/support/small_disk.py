"""A disk that tests fill up and free again."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest


class Disk(Protocol):
    folder: Path
    message: str  # of the system's error

    def fill(self) -> None:
        """From here on no file can grow."""

    def free(self) -> None:
        """From here on files can grow again."""


class _SmallDisk:
    """A file system of 1 MiB in memory; only root may mount one."""

    message = "No space left on device"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)


class _SizeLimit:
    """A limit on the size of files, for systems on which nothing can be mounted."""

    message = "File too large"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@pytest.fixture(params=["small disk", "size limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk that the test fills, with a folder on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "size limit":
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = _SizeLimit(folder)
        yield limit
        limit.free()
        signal.signal(signal.SIGXFSZ, handler)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no small disk: {error}")
    if done.returncode:
        pytest.skip(f"no small disk: {done.stderr.strip()}")
    yield _SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
