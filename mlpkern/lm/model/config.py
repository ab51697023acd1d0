"""The settings of a training run and the named sets of them (presets)."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.schedule import (
    SCHEDULES,
    Stages,
    check_order,
    learning_rates,
    scaled,
    step_at,
)
from mlpkern.lm.model.setting import (
    OneOf,
    Rates,
    Real,
    Seed,
    Setting,
    Steps,
    Whole,
    Widths,
    is_single,
    setting,
)
from mlpkern.mlp.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from torch import Tensor

INITS = ("lecture", "scaled")
_NOT_NEGATIVE = Real("finite and at least 0", lambda value: 0 <= value < math.inf)
_DROPOUT = Real("at least 0 and below 1", lambda value: 0 <= value < 1)
_SHARE = Real("0 to 1", lambda value: 0 <= value <= 1)
_BOUND = Real("above 0 and finite", lambda value: 0 < value < math.inf, optional=True)

_INTERVAL: Any = {"group": "on the way", "metavar": "S", "searchable": False, "resumable": True}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the numbers of a run, then how often it logs, evaluates and saves.

    Each setting is declared once, by `setting`; ``help(TrainConfig)`` and ``mlpkern train --help``
    tell what it means. Numbers may be of Python, numpy or torch; they are kept as those of Python.
    ConfigError names a setting that is out of range.

    ``lr`` holds (place, learning rate) pairs, each from its place on, the first from step 0. A
    place is a step (int) or a share of ``steps`` (float below 1), which moves with the length of
    the run; a number alone is a constant rate. Batches are drawn with replacement. Dropout and
    label smoothing belong to the steps: the losses of steps are with them, those of evaluations
    without. Initial parameters, batches and dropout draw from one stream each (`seed_for`).
    """

    block_size: int = setting(
        3, Whole(1), "symbols of context ({})", "model", "T", "context T", per_call=True
    )
    embedding_dim: int = setting(
        10, Whole(1), "width of the embedding ({})", "model", "D", "embedding D", per_call=True
    )
    hidden: tuple[int, ...] = setting(
        (200,), Widths(), "width of each hidden layer ({})", "model", "H[,H...]", "hidden H",
        per_call=True,
    )  # fmt: skip
    init: str = setting(
        "scaled", OneOf(INITS),
        "initial parameters: lecture: all N(0,1); scaled: by fan-in", "model",
    )  # fmt: skip
    batch_size: int = setting(
        32, Whole(1), "rows of a step ({})", "training", "N", "batch N", per_call=True
    )
    steps: int = setting(
        20_000, Whole(), "optimizer steps of the whole run", "training", "S",
        searchable=False, resumable=True,
    )  # fmt: skip
    lr: tuple[tuple[int | float, float], ...] = setting(
        ((0, 0.1), (0.75, 0.01)), Rates(),
        "learning rate, and others from later on: 0.1,0.01@75% or 0.1,0.01@15000; a rate alone "
        "scales those of the preset ({})", "training",
        "LR[,LR@WHEN...]", "learning rate", resumable=True,
    )  # fmt: skip
    schedule: str = setting(
        "staged", OneOf(SCHEDULES),
        "staged (default): --lr as it is; cosine: it falls to 0 at the end", "training",
        resumable=True,
    )  # fmt: skip
    warmup: int | float = setting(
        0, Steps(), "steps over which the rate rises first, or their share as in 2.5% ({})",
        "training", "S", resumable=True,
    )  # fmt: skip
    optimizer: str = setting(
        "sgd", OneOf(OPTIMIZERS), "sgd or adamw ({})", "optimizer", per_call=True
    )
    momentum: float = setting(0.0, _NOT_NEGATIVE, "of sgd ({})", "optimizer", "M", per_call=True)
    weight_decay: float = setting(
        0.0, _NOT_NEGATIVE, "sgd: of all parameters; adamw: decoupled, not of biases ({})",
        "optimizer", "W",
    )  # fmt: skip
    input_dropout: float = setting(
        0.0, _DROPOUT, "share of the embedded input zeroed ({})", "optimizer", "P"
    )
    hidden_dropout: float = setting(
        0.0, _DROPOUT, "share of hidden outputs zeroed ({})", "optimizer", "P"
    )
    max_grad_norm: float | None = setting(
        None, _BOUND, "longer gradients are scaled to this norm", "optimizer", "G",
        "gradient norm", per_call=True,
    )  # fmt: skip
    label_smoothing: float = setting(
        0.0, _SHARE, "probability spread over all symbols, 0 to 1 ({})", "optimizer", "E",
        per_call=True,
    )  # fmt: skip
    seed: int = setting(
        0, Seed(), "seed of initial parameters, batches and dropout ({})", "training", "SEED"
    )
    split_seed: int = setting(
        42, Seed(), "seed of the shuffle before the split ({})", "training", "SEED",
        searchable=False,
    )  # fmt: skip
    log_every: int | None = setting(
        None, Whole(1, optional=True), "steps between log rows (a hundredth of the run)",
        **_INTERVAL,
    )  # fmt: skip
    eval_every: int | None = setting(
        None, Whole(optional=True),
        "steps between dev losses (a tenth of the run); 0: only at the end", **_INTERVAL,
    )  # fmt: skip
    checkpoint_every: int | None = setting(
        None, Whole(optional=True),
        "steps between checkpoints (a tenth of the run); 0: only at the end", **_INTERVAL,
    )  # fmt: skip
    patience: int = setting(
        0, Whole(), "end after N dev losses in a row above the lowest; {} (default): never",
        "on the way", "N", searchable=False, resumable=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, about in SETTINGS.items():
            object.__setattr__(self, name, about.kind.checked(name, getattr(self, name)))
        check_order(self.lr, self.steps)
        if self.patience and not self.eval_interval:
            raise ConfigError(
                f"patience {self.patience} needs dev losses on the way, got eval_every 0"
            )
        if self.optimizer == "adamw" and self.momentum:
            raise ConfigError(f"momentum is for optimizer sgd, got {self.momentum} with adamw")

    @property
    def log_interval(self) -> int:
        """The steps between log rows: ``log_every``, or a hundredth of the run."""
        return max(1, self.steps // 100) if self.log_every is None else self.log_every

    @property
    def eval_interval(self) -> int:
        """The steps between dev losses: ``eval_every``, or a tenth of the run; 0: none."""
        return max(1, self.steps // 10) if self.eval_every is None else self.eval_every

    @property
    def checkpoint_interval(self) -> int:
        """The steps between checkpoints: ``checkpoint_every``, or a tenth of the run; 0: none."""
        return max(1, self.steps // 10) if self.checkpoint_every is None else self.checkpoint_every

    def stages_after_the_end(self) -> Stages:
        """The stages of ``lr`` that no step of the run reaches."""
        steps = max(1, self.steps)
        return tuple(one for one in self.lr if step_at(one[0], self.steps) >= steps)

    def with_settings(self, **settings: Any) -> TrainConfig:
        """These settings with others in place of some.

        A number alone as ``lr`` scales all stages, so that the first rate is that number. Another
        ``schedule`` begins without the stages of this one, at the first rate.

        Examples:
            >>> TrainConfig().with_settings(lr=0.2, steps=1_000).lr
            ((0, 0.2), (0.75, 0.02))
            >>> TrainConfig().with_settings(schedule="cosine").lr
            ((0, 0.1),)
        """
        lr = self.lr if settings.get("schedule", self.schedule) == self.schedule else self.lr[:1]
        if is_single(rate := settings.get("lr", self.lr)):
            [(_, first)] = SETTINGS["lr"].kind.checked("lr", rate)
            settings["lr"] = scaled(lr, first)
        elif "lr" not in settings:
            settings["lr"] = lr
        return dataclasses.replace(self, **settings)

    def learning_rates(self, first: int, steps: int) -> Tensor:
        """The learning rates of the ``steps`` steps from step ``first`` on: (steps,) float64."""
        return learning_rates(self.lr, self.schedule, self.warmup, self.steps, first, steps)

    def beyond_plain_sgd(self) -> dict[str, Any]:
        """The settings of the steps that differ from plain SGD, by name."""
        values = {name: getattr(self, name) for name in settings_of("optimizer")}
        return {name: v for name, v in values.items() if v != getattr(TrainConfig, name)}

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """The config that `to_json` wrote; ConfigError names settings that are unknown."""
        if unknown := sorted(set(values) - set(SETTINGS)):
            raise ConfigError(f"unknown settings: {', '.join(unknown)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"settings: {error}") from None


SETTINGS: dict[str, Setting] = {
    field.name: field.metadata["setting"] for field in dataclasses.fields(TrainConfig)
}

# the settings that models must share to train in one call
SHAPE = tuple(name for name, about in SETTINGS.items() if about.per_call)


def settings_of(group: str) -> list[str]:
    """The names of the settings whose flags are in ``group``, in their order."""
    return [name for name, about in SETTINGS.items() if about.group == group]


_TOLD = [
    f"        {name}: {about.told(getattr(TrainConfig, name))}; {about.kind.bounds}"
    for name, about in SETTINGS.items()
]
TrainConfig.__doc__ = "\n".join([TrainConfig.__doc__ or "", "    Attributes:", *_TOLD])


def seed_for(seed: int, purpose: str) -> int:
    """A seed for one purpose that is unrelated to the seeds for others.

    The purposes are "init", "batches" and "dropout". The first 63 bits of
    SHA-256 of "mlpkern <seed> <purpose>".
    """
    digest = hashlib.sha256(f"mlpkern {seed} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


DEFAULT_PRESET = "quick"
PRESETS = {
    # a few seconds; right for a few thousand words
    "quick": TrainConfig(),
    # the lecture's first picture: an embedding of two dimensions is a map of the symbols
    "letters": TrainConfig(embedding_dim=2, hidden=(100,), steps=50_000),
    # makemore part 2, "summary of our final code": dev loss about 2.17 on the makemore names
    "lecture": TrainConfig(
        init="lecture",
        steps=200_000,
        lr=((0, 0.1), (0.5, 0.01)),
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
        warmup=0.025,
        optimizer="adamw",
        weight_decay=0.0245,
        hidden_dropout=0.154,
    ),
}
