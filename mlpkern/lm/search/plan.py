"""The plan of a sweep: its search space, its budget, and how it prunes.

A plan file is YAML with any keys of `SweepPlan`; ``set`` fixes settings, ``search`` is the search
space::

    trials: 48
    rungs: [0.2, 0.5]
    set: {steps: 20000, optimizer: adamw, schedule: cosine}
    search:
      hidden: [128, 256]
      lr: {low: 0.001, high: 0.01, log: true}
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import TrainConfig, settings_of
from mlpkern.lm.model.setting import check_seed
from mlpkern.lm.plan_file import read_plan_file
from mlpkern.lm.search.space import SearchSpace

DEFAULT_BASE = TrainConfig(
    batch_size=256, steps=20_000, lr=((0, 0.004),), schedule="cosine", warmup=0.025,
    optimizer="adamw",
)  # fmt: skip
# Without input_dropout: with it the first layer cannot be folded (csrc/cpu/mlp/fold.h), so that a
# step takes two to three times as long, and dev comes no lower.
DEFAULT_SPACE = SearchSpace.from_json(
    {
        "block_size": [5, 8, 10],
        "embedding_dim": [10, 16, 24, 32],
        "hidden": [128, 256, 384, 512],
        "lr": {"low": 0.001, "high": 0.01, "log": True},
        "weight_decay": {"low": 0.005, "high": 0.5, "log": True},
        "hidden_dropout": {"low": 0.0, "high": 0.3},
    }
)


@dataclass(frozen=True)
class SweepPlan:
    """What a search tries, and its budget.

    Attributes:
        base: the settings that are not searched
        space: the settings that are searched
        trials: the total of trials, including those of earlier calls on the same study; >= 1
        minutes: begin no batch that would probably end later than this; None: no limit; > 0
        batch: trials that are proposed and trained together; where seeds are searched, as many
            settings with all their seeds as fit, at least one; >= 1
        shapes: the number of different shapes in a batch; trials of one shape train in one call;
            >= 1
        rungs: shares of the steps after which the worst trials are pruned; rising, in (0, 1)
        cooldown: the dev loss at a rung is that of a copy after this share of the steps so far, at
            learning rates that fall to 0 (`Population.dev`); 0 to 1
        keep: at a rung one in ``keep`` continues, of settings with all their seeds; >= 1
        seed: seed of the search, whose first batches are random; >= 0
    """

    base: TrainConfig = DEFAULT_BASE
    space: SearchSpace = DEFAULT_SPACE
    trials: int = 64
    minutes: float | None = 9.0
    batch: int = 16
    shapes: int = 8
    rungs: tuple[float, ...] = (0.4,)
    cooldown: float = 0.1
    keep: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "rungs", tuple(self.rungs))
        for name, low in {"trials": 1, "batch": 1, "shapes": 1, "keep": 1}.items():
            value = getattr(self, name)
            whole = name == "keep" or isinstance(value, int)
            if not (whole and low <= value < math.inf):
                raise ConfigError(f"sweep: {name} must be at least {low}, got {value!r}")
        check_seed("sweep: seed", self.seed)
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ConfigError(f"sweep: minutes must be above 0, got {self.minutes}")
        if not all(a < b for a, b in pairwise((0, *self.rungs, 1))):
            raise ConfigError(
                f"sweep: rungs must rise and lie between 0 and 1, got {list(self.rungs)}"
            )
        if not 0 <= self.cooldown <= 1:
            raise ConfigError(f"sweep: cooldown must be 0 to 1, got {self.cooldown}")
        if self.base.steps < 1:
            raise ConfigError(f"sweep: steps must be at least 1, got {self.base.steps}")
        if self.base.patience:
            raise ConfigError(
                f"sweep: patience is for single runs, got {self.base.patience}; here the rungs end "
                "what looks bad"
            )
        if list(self.space.entries) == ["seed"]:
            raise ConfigError(
                "sweep: seed alone makes all trials the same but for chance; search another setting"
            )
        self.space.check(self.base)

    def work(self, count: int) -> int:
        """The steps of all models of a batch of ``count`` trials, cool-downs among them."""
        repeats, done, steps = max(1, len(self.space.seeds)), 0, 0
        going = math.ceil(count / repeats)
        for share in (*self.rungs, 1.0):
            step = self.step_at(share)
            steps += going * repeats * (step - done + self.cooldown_at(share))
            going, done = self.kept(going), step
        return steps

    def step_at(self, share: float) -> int:
        """The step of a rung."""
        return round(share * self.base.steps)

    def cooldown_at(self, share: float) -> int:
        """The steps of the cool-down before the dev losses of a rung; none at the end."""
        return round(self.cooldown * self.step_at(share)) if share < 1 else 0

    def kept(self, going: int) -> int:
        """How many of ``going`` settings continue after a rung."""
        return math.ceil(going / self.keep)

    def identity(self) -> dict[str, Any]:
        """The part of the plan that must be the same in all calls on one study."""
        settings = self.base.to_json()
        for name in (*self.space.entries, *settings_of("on the way")):
            del settings[name]
        return {"search": self.space.to_json(), "set": settings}


def read_plan(path: str | Path) -> SweepPlan:
    """The default plan changed by the YAML file ``path``; ConfigError for any fault in the file."""
    values = read_plan_file(path)
    try:
        return _plan_with(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _plan_with(values: dict[str, Any]) -> SweepPlan:
    """The default plan with the keys of a plan file; settings in ``set`` leave the space."""
    plan = SweepPlan()
    values = dict(values)
    fixed = values.pop("set", None) or {}
    searched = values.pop("search", None)
    known = {field.name for field in dataclasses.fields(SweepPlan)} - {"base", "space"}
    if unknown := sorted(set(map(str, values)) - known):
        names = ", ".join([*sorted(known), "search", "set"])
        raise ConfigError(f"unknown keys {', '.join(unknown)}; the keys are {names}")
    if not isinstance(fixed, dict):
        raise ConfigError("set must map names of settings to values")
    space = plan.space.without(fixed) if searched is None else SearchSpace.from_json(searched)
    if both := sorted(set(fixed) & set(space.entries)):
        raise ConfigError(f"{', '.join(both)}: both set and searched")
    base = TrainConfig.from_json({**plan.base.to_json(), **fixed})
    try:
        return dataclasses.replace(plan, base=base, space=space, **values)
    except TypeError as error:
        raise ConfigError(str(error)) from None
