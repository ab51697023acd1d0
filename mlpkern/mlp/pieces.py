"""Long work in pieces of about the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator

FIRST = 64
GROWTH = 8


def pieces(count: int, seconds: float) -> Iterator[tuple[int, int]]:
    """Cuts range(count) into pieces (begin, end) that take about ``seconds`` each.

    The time from one request for a piece to the next is that of the piece. The first is short, and
    every other one at most eight times as long as the one before.
    """
    begin, size = 0, FIRST
    while begin < count:
        end = min(begin + size, count)
        began = time.perf_counter()
        yield begin, end
        elapsed = max(time.perf_counter() - began, 1e-9)
        size = max(1, min(GROWTH * size, int((end - begin) * seconds / elapsed)))
        begin = end
