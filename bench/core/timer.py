"""The timer: the only place of the benchmark that measures how long something takes.

Contestants are timed in turns. A round visits each of them once, in a fresh random order: switch
(threads, backend, output pool), run untimed to get warm after the switch, then time one sample.
So what drifts during a case (clock, other programs) affects all contestants alike. A
sample repeats the call until it lasts `min_sample_s`, and reports seconds per call.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

MIN_SAMPLE_S = 2e-3
MIN_ROUNDS = 5
MAX_ROUNDS = 200
T = TypeVar("T")


class Contestant(Protocol):
    """What the timer takes: a name, a switch, and a sample of `repeats` calls in seconds.

    `calls` is how many make a sample, 0 for as many as last `min_sample_s`.
    """

    name: str
    calls: int

    def active(self) -> contextlib.AbstractContextManager[object]: ...

    def sample(self, repeats: int) -> float: ...


@dataclass
class LocalContestant:
    """A call in this process. `switch` makes the context in which it runs (not timed).

    `finish` waits for work that calls leave behind, on a GPU; it is part of the time.
    """

    name: str
    call: Callable[[], object]
    switch: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    finish: Callable[[], object] | None = None
    calls: int = 0

    def active(self) -> contextlib.AbstractContextManager[object]:
        return self.switch()

    def sample(self, repeats: int) -> float:
        return seconds_of(self.call, repeats, self.finish)


@dataclass
class RemoteContestant:
    """Calls in another process, which measures them: `ask` gives the seconds of `repeats`."""

    name: str
    ask: Callable[[int], float]
    calls: int = 0

    def active(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def sample(self, repeats: int) -> float:
        return self.ask(repeats)


@dataclass(frozen=True)
class Timing:
    """Seconds per call of each sample, and their order statistics."""

    samples: tuple[float, ...]
    repeats: int
    median: float = field(init=False)
    q1: float = field(init=False)
    q3: float = field(init=False)
    minimum: float = field(init=False)

    def __post_init__(self) -> None:
        ordered = sorted(self.samples)
        if len(ordered) > 1:
            q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
        else:
            q1 = median = q3 = ordered[0]
        for name, value in (("median", median), ("q1", q1), ("q3", q3), ("minimum", ordered[0])):
            object.__setattr__(self, name, value)


def seconds_of(
    call: Callable[[], object], repeats: int, finish: Callable[[], object] | None = None
) -> float:
    """Seconds that `repeats` calls take together. Results are dropped at once, as a loop would."""
    if finish is not None:
        finish()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if finish is not None:
        finish()
    return time.perf_counter() - start


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds of one call, and its result: for what is too long to repeat."""
    results: list[T] = []
    return seconds_of(lambda: results.append(call()), 1), results[0]


def repeats_for(contestant: Contestant, min_sample_s: float) -> int:
    """How many calls make a sample of about `min_sample_s`; the contestant is active and warm."""
    repeats = 1
    while True:
        elapsed = contestant.sample(repeats)
        if elapsed >= min_sample_s:
            return repeats
        grown = math.ceil(repeats * min_sample_s / max(elapsed, 1e-7))
        repeats = min(max(grown, repeats + 1), 10 * repeats)


def interleave(
    contestants: Sequence[Contestant],
    *,
    budget_s: float,
    min_sample_s: float = MIN_SAMPLE_S,
    min_rounds: int = MIN_ROUNDS,
    max_rounds: int = MAX_ROUNDS,
    limit_s: float = math.inf,
    warm: bool = True,
    seed: int = 0,
) -> dict[str, Timing]:
    """Times all contestants in turns for about `budget_s` seconds and returns a Timing for each.

    At least `min_rounds` rounds are run, but after `limit_s` seconds no further one. Without `warm`
    no untimed calls come before the samples of a round: calls of a second do not need them.
    Garbage is collected between rounds, never inside a sample.
    """
    if len({c.name for c in contestants}) != len(contestants):
        raise ValueError("interleave: two contestants have the same name")
    order = list(contestants)
    shuffle = random.Random(seed).shuffle
    samples: dict[str, list[float]] = {c.name: [] for c in contestants}
    repeats: dict[str, int] = {}
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what lives now is not searched again, so a collection per round is cheap
    gc.disable()
    try:
        start = time.perf_counter()
        for contestant in order:
            with contestant.active():
                contestant.sample(1)
                count = contestant.calls or repeats_for(contestant, min_sample_s)
                repeats[contestant.name] = count
        for finished in range(max_rounds):
            passed = time.perf_counter() - start
            if finished and passed >= (budget_s if finished >= min_rounds else limit_s):
                break
            gc.collect()
            shuffle(order)
            for contestant in order:
                count = repeats[contestant.name]
                with contestant.active():
                    if warm:
                        contestant.sample(max(1, count // 4))
                    samples[contestant.name].append(contestant.sample(count) / count)
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return {name: Timing(tuple(times), repeats[name]) for name, times in samples.items()}
