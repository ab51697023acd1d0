"""The settings of a training run and the named sets of them (presets)."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import operator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.schedule import SCHEDULES, Stages, check_stages, learning_rates
from mlpkern.mlp.optimizer_state import OPTIMIZERS

__all__ = ["DEFAULT_PRESET", "INITS", "PRESETS", "TrainConfig", "check_seed", "seed_for"]

INITS = ("lecture", "scaled")
MOST = 1 << 40  # of any size or count of steps: beyond, something would overflow far from here


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the numbers of a run, then what decides how it is carried out.

    Numbers may be of Python, numpy or torch; they are kept as those of Python.

    Attributes:
        block_size: T, symbols of context; >= 1
        embedding_dim: D, width of the embedding; >= 1
        hidden: width of each hidden tanh layer; one or more, each >= 1
        init: "lecture" (all N(0, 1)) or "scaled" (model.py)
        batch_size: N, rows of a step, drawn with replacement; >= 1
        steps: optimizer steps of the whole run; >= 0
        lr: ((step, learning rate), ...), each from its step on, the first from 0
        schedule: "staged": lr as it is; "cosine": times a cosine that falls to 0 at ``steps``
        warmup: steps over which the rate rises from 0 first; >= 0 (schedule.py)
        optimizer: "sgd" or "adamw", as in `mlpkern.train_steps`
        momentum: of sgd; >= 0
        weight_decay: sgd: of every parameter; adamw: decoupled, not of biases; >= 0
        input_dropout: probability of a zero in the embedded input; 0 <= p < 1
        hidden_dropout: the same for the output of each hidden layer; 0 <= p < 1
        max_grad_norm: bound of the norm of all gradients together; > 0, None: no bound
        label_smoothing: as in ``F.cross_entropy``; 0 to 1
        seed: initial parameters, batches and dropout, a stream of its own each (`seed_for`); 0 <=
            seed < 2^64
        split_seed: the shuffle before the words are split
        log_every: steps between log rows; >= 1
        eval_every: steps between dev losses, 0: only at the end
        checkpoint_every: steps between checkpoints, 0: only at the end
        patience: the run ends after so many dev losses in a row that are not below the lowest
            before, 0: never; >= 0, with eval_every

    Dropout and smoothing belong to the steps: the losses of steps are with them, those of
    evaluations without.
    """

    block_size: int = 3
    embedding_dim: int = 10
    hidden: tuple[int, ...] = (200,)
    init: str = "scaled"
    batch_size: int = 32
    steps: int = 20_000
    lr: Stages = ((0, 0.1), (15_000, 0.01))
    schedule: str = "staged"
    warmup: int = 0
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    input_dropout: float = 0.0
    hidden_dropout: float = 0.0
    max_grad_norm: float | None = None
    label_smoothing: float = 0.0
    seed: int = 0
    split_seed: int = 42
    log_every: int = 1_000
    eval_every: int = 5_000
    checkpoint_every: int = 5_000
    patience: int = 0

    def __post_init__(self) -> None:
        set_field = partial(object.__setattr__, self)
        set_field("hidden", tuple(_whole("hidden", width) for width in self.hidden))
        set_field("lr", tuple((_whole("lr", s), _number("lr", v)) for s, v in self.lr))
        at_least = {
            "block_size": 1, "embedding_dim": 1, "batch_size": 1, "steps": 0, "warmup": 0,
            "seed": 0, "split_seed": 0, "log_every": 1, "eval_every": 0, "checkpoint_every": 0,
            "patience": 0,
        }  # fmt: skip
        for name, low in at_least.items():
            value = _whole(name, getattr(self, name))
            if name.endswith("seed"):
                check_seed(name, value)
            elif not low <= value <= MOST:
                limit = f"at least {low}" if value < low else f"at most {MOST}"
                raise ConfigError(f"{name} must be {limit}, got {value}")
            set_field(name, value)
        if max(self.hidden, default=0) > MOST:
            raise ConfigError(f"hidden must be at most {MOST}, got {list(self.hidden)}")
        if not self.hidden or min(self.hidden) < 1:
            raise ConfigError(
                f"hidden must be one width or more, each at least 1, got {list(self.hidden)}"
            )
        choices = {"init": INITS, "schedule": SCHEDULES, "optimizer": OPTIMIZERS}
        for name, values in choices.items():
            if (value := getattr(self, name)) not in values:
                raise ConfigError(f"{name} must be one of {', '.join(values)}, got {value!r}")
        if self.patience and not self.eval_every:
            raise ConfigError(
                f"patience {self.patience} needs dev losses on the way, got eval_every 0"
            )
        check_stages(self.lr)
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in _NUMBERS:
            if (value := getattr(self, name)) is not None or name != "max_grad_norm":
                object.__setattr__(self, name, _number(name, value))
        for name in ("momentum", "weight_decay"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ConfigError(f"{name} must be finite and at least 0, got {value}")
        for name in ("input_dropout", "hidden_dropout"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, got {value}")
        if not 0 <= self.label_smoothing <= 1:
            raise ConfigError(f"label_smoothing must be 0 to 1, got {self.label_smoothing}")
        if self.max_grad_norm is not None and not 0 < self.max_grad_norm < math.inf:
            raise ConfigError(f"max_grad_norm must be above 0 and finite, got {self.max_grad_norm}")
        if self.optimizer == "adamw" and self.momentum:
            raise ConfigError(f"momentum is for optimizer sgd, got {self.momentum} with adamw")

    def learning_rates(self, first: int, steps: int) -> Tensor:
        """The learning rates of the ``steps`` steps from step ``first`` on: (steps,) float64."""
        return learning_rates(self.lr, self.schedule, self.warmup, self.steps, first, steps)

    def beyond_plain_sgd(self) -> dict[str, Any]:
        """The settings of the steps that differ from plain SGD, by name."""
        return {name: value for name in _OF_STEPS if (value := getattr(self, name)) != _PLAIN[name]}

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
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


def check_seed(name: str, seed: int) -> None:
    """ConfigError unless ``seed`` is one that torch's generators take."""
    if (number := _whole(name, seed)) < 0 or number >= 1 << 64:
        limit = "at least 0" if number < 0 else "below 2^64"
        raise ConfigError(f"{name} must be {limit}, got {seed}")


def _whole(name: str, value: Any) -> int:
    """``value`` as a Python int, which JSON can hold."""
    try:
        return operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise ConfigError(f"{name} must be a whole number, got {value!r} ({kind})") from None


def _number(name: str, value: Any) -> float:
    """``value`` as a Python float, which JSON can hold."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ConfigError(f"{name} must be a number, got {value!r}") from None


def seed_for(seed: int, purpose: str) -> int:
    """A seed for one purpose that is unrelated to the seeds for others.

    The purposes are "init", "batches" and "dropout". The first 63 bits of
    SHA-256 of "mlpkern <seed> <purpose>".
    """
    digest = hashlib.sha256(f"mlpkern {seed} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


_OF_STEPS = (
    "optimizer", "momentum", "weight_decay", "input_dropout", "hidden_dropout", "max_grad_norm",
    "label_smoothing",
)  # fmt: skip
_NUMBERS = tuple(name for name in _OF_STEPS if name != "optimizer")
_PLAIN = {field.name: field.default for field in dataclasses.fields(TrainConfig)}

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
    # what `mlpkern sweep` found on the makemore names: dev loss 1.966
    "best": TrainConfig(
        block_size=10,
        embedding_dim=24,
        hidden=(512,),
        batch_size=256,
        steps=20_000,
        lr=((0, 0.00252),),
        schedule="cosine",
        warmup=500,
        optimizer="adamw",
        weight_decay=0.0245,
        hidden_dropout=0.154,
    ),
}
