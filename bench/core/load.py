"""How busy other programs keep the machine during a run: the figures of several threads suffer."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")
PAUSE_S = 0.1
BUSY = 0.1  # from this share of the CPU time on the machine is called loaded


class Load:
    """Samples of the CPU time that others use, taken while this process waits."""

    def __init__(self) -> None:
        self._first = _times()
        self.busy: list[float] = []
        self.sample()

    def sample(self) -> None:
        """Waits a tenth of a second; without /proc/stat there is nothing to sample."""
        if self._first is None:
            return
        before, own = _times(), time.process_time()
        time.sleep(PAUSE_S)
        own = (time.process_time() - own) / (PAUSE_S * (os.cpu_count() or 1))  # threads that spin
        self.busy.append(max(0.0, _shares(before, _times())[0] - own))

    def told(self) -> dict[str, float | None]:
        """Shares of the CPU time: `busy` used by others on average, `most` at worst, `stolen` by
        the machine's host during the whole run; `average` is the load average of a minute."""
        average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        told = {"busy": None, "most": None, "stolen": None, "average": average}
        if self.busy:
            stolen = _shares(self._first, _times())[1]
            told |= {"busy": sum(self.busy) / len(self.busy), "most": max(self.busy)}
            told["stolen"] = stolen
        return told


def loaded(told: dict[str, float | None]) -> bool:
    """Whether others had so much of the CPU that it shows in the figures."""
    return max(told["busy"] or 0.0, told["stolen"] or 0.0) > BUSY


def _times() -> list[int] | None:
    """Ticks of all CPUs: user, nice, system, idle, iowait, irq, softirq, steal."""
    try:
        first = STAT.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return [int(ticks) for ticks in first[1:9]]


def _shares(before: list[int] | None, after: list[int] | None) -> tuple[float, float]:
    """Which share of the time between was used, and which of it was stolen."""
    if before is None or after is None:
        return 0.0, 0.0
    passed = [b - a for a, b in zip(before, after, strict=True)]
    everything = max(1, sum(passed))
    idle, stolen = passed[3] + passed[4], passed[7]
    return 1 - idle / everything if sum(passed) else 0.0, stolen / everything
