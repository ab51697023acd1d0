"""The settings of a training run and the named sets of them (presets)."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mlpkern.lm.errors import ConfigError

__all__ = [
    "DEFAULT_PRESET",
    "INITS",
    "PRESETS",
    "TrainConfig",
    "learning_rate",
    "learning_rates",
    "seed_for",
]

INITS = ("lecture", "scaled")
Schedule = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the numbers of a run, then what decides how it is carried out.

    block_size        T, symbols of context                                >= 1
    embedding_dim     D, width of the embedding                            >= 1
    hidden            width of each hidden tanh layer                      one or more, each >= 1
    init              "lecture" (all N(0, 1)) or "scaled" (model.py)
    batch_size        N, rows of a step, drawn with replacement            >= 1
    steps             SGD steps of the whole run                           >= 0
    lr                ((step, learning rate), ...), each from its step on, the first from 0
    seed              initial parameters and batches, a stream of its own each (`seed_for`)
    split_seed        the shuffle before the words are split
    log_every         steps between log rows                               >= 1
    eval_every        steps between dev losses, 0: only at the end
    checkpoint_every  steps between checkpoints, 0: only at the end
    """

    block_size: int = 3
    embedding_dim: int = 10
    hidden: tuple[int, ...] = (200,)
    init: str = "scaled"
    batch_size: int = 32
    steps: int = 20_000
    lr: Schedule = ((0, 0.1), (15_000, 0.01))
    seed: int = 0
    split_seed: int = 42
    log_every: int = 1_000
    eval_every: int = 5_000
    checkpoint_every: int = 5_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "lr", tuple((int(s), float(v)) for s, v in self.lr))
        at_least = {
            "block_size": 1, "embedding_dim": 1, "batch_size": 1, "steps": 0, "seed": 0,
            "split_seed": 0, "log_every": 1, "eval_every": 0, "checkpoint_every": 0,
        }  # fmt: skip
        for name, low in at_least.items():
            if (value := getattr(self, name)) < low:
                raise ConfigError(f"{name} must be at least {low}, got {value}")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"hidden must be one width or more, each at least 1, got {list(self.hidden)}"
            )
        if self.init not in INITS:
            raise ConfigError(f"init must be one of {', '.join(INITS)}, got {self.init!r}")
        _check_schedule(self.lr)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """The config that `to_json` wrote; ConfigError names settings that are unknown."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"unknown settings: {', '.join(unknown)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"settings: {error}") from None


def learning_rate(schedule: Schedule, step: int) -> float:
    """The learning rate of step ``step`` (the first step is 0)."""
    current = schedule[0][1]
    for start, value in schedule:
        if start > step:
            break
        current = value
    return current


def learning_rates(schedule: Schedule, first: int, steps: int) -> Tensor:
    """The learning rates of the ``steps`` steps from step ``first`` on: (steps,) float64, CPU."""
    rates = torch.empty(steps, dtype=torch.float64)
    for start, value in schedule:
        rates[max(0, start - first) :] = value  # a later entry overwrites the rest
    return rates


def seed_for(seed: int, purpose: str) -> int:
    """A seed for one purpose ("init", "batches") that is unrelated to the seeds for others.

    The first 63 bits of SHA-256 of "mlpkern <seed> <purpose>".
    """
    digest = hashlib.sha256(f"mlpkern {seed} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _check_schedule(schedule: Schedule) -> None:
    if not schedule or schedule[0][0] != 0:
        raise ConfigError(f"lr must start at step 0, got {list(schedule)}")
    steps = [step for step, _ in schedule]
    if steps != sorted(set(steps)):
        raise ConfigError(f"lr must have rising steps, got {steps}")
    for step, value in schedule:
        if not 0 <= value <= torch.finfo(torch.float32).max:
            raise ConfigError(
                f"lr from step {step} must be finite and at least 0, in float32, got {value}"
            )


DEFAULT_PRESET = "quick"
PRESETS = {
    # a few seconds; right for a few thousand words
    "quick": TrainConfig(),
    # makemore part 2, "summary of our final code": dev loss about 2.17 on the makemore names
    "lecture": TrainConfig(
        init="lecture",
        steps=200_000,
        lr=((0, 0.1), (100_000, 0.01)),
        eval_every=20_000,
        checkpoint_every=20_000,
    ),
}
