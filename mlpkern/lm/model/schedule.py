"""The stages of a learning-rate schedule and where they begin; rates.py makes rates of them.

A place is a step (int) or a share of the steps of a run (float below 1).
"""

from __future__ import annotations

from mlpkern.lm.errors import ConfigError

SCHEDULES = ("staged", "cosine")
LARGEST = (2 - 2**-23) * 2.0**127  # of float32; torch knows it, but takes long to import
Place = int | float  # a step, or a share of the steps of a run
Stages = tuple[tuple[Place, float], ...]


def step_at(place: Place, total: int) -> int:
    """The step at ``place`` of a run of ``total`` steps.

    >>> step_at(15, 1_000), step_at(0.75, 1_000)
    (15, 750)
    """
    return round(place * total) if isinstance(place, float) else place


def check_stages(lr: Stages) -> None:
    """ConfigError unless the stages begin at step 0 and hold rates of float32."""
    if not lr or lr[0][0] != 0:
        raise ConfigError(f"lr must start at step 0, got {list(lr)}")
    for place, value in lr:
        if not 0 <= value <= LARGEST:
            at = place_text(place) if isinstance(place, float) else f"step {place}"
            raise ConfigError(
                f"lr from {at} must be finite and at least 0, in float32, got {value}"
            )
    for kind in (int, float):
        places = [place for place, _ in lr if type(place) is kind]
        if places != sorted(set(places)):
            raise ConfigError(f"lr must have rising steps, got {[place for place, _ in lr]}")


def check_order(lr: Stages, total: int) -> None:
    """ConfigError unless each stage begins at or after the one before it in a run of ``total``."""
    steps = [step_at(place, total) for place, _ in lr]
    if steps != sorted(steps):
        places = [place_text(place) for place, _ in lr]
        raise ConfigError(f"lr must have rising steps, got {places} of {total} steps")


def place_text(place: Place) -> str:
    """A place as the command line takes it.

    >>> place_text(100), place_text(0.75)
    ('100', '75%')
    """
    return f"{100 * place:.6g}%" if isinstance(place, float) else str(place)


def scaled(lr: Stages, rate: float) -> Stages:
    """``lr`` with all rates times one factor, so that the first is ``rate``.

    >>> scaled(((0, 0.1), (0.75, 0.01)), 0.3)
    ((0, 0.3), (0.75, 0.03))
    """
    first = lr[0][1]
    if not first:
        return ((0, rate),)
    return tuple((place, float(f"{rate * (value / first):.12g}")) for place, value in lr)
