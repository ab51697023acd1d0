"""The settings with which a saved run continues, and their effect on its learning rate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import SETTINGS, TrainConfig
from mlpkern.lm.model.schedule import Place, step_at
from mlpkern.lm.model.setting import setting_text
from mlpkern.lm.saved.checkpoint import Checkpoint


def resumed_config(checkpoint: Checkpoint, given: dict[str, Any], run: str | Path) -> TrainConfig:
    """The settings of ``checkpoint`` changed by the ``given`` ones.

    ConfigError, which names the folder ``run``, for a setting that cannot change during a run, and
    for fewer steps than are done.
    """
    before = checkpoint.config
    for name, value in given.items():
        begun = getattr(before, name)
        if not SETTINGS[name].resumable and value != begun:
            raise ConfigError(
                f"{name} {setting_text(value)}: {run} was begun with {setting_text(begun)}"
            )
    if given.get("steps", before.steps) != before.steps:
        given = {**_passed(before, checkpoint.step, given["steps"]), **given}
    config = dataclasses.replace(before, **given)
    if config.steps < checkpoint.step:
        raise ConfigError(f"steps {config.steps}: {run} is at step {checkpoint.step}")
    return config


def _passed(before: TrainConfig, step: int, steps: int) -> dict[str, Any]:
    """The schedule of ``before`` at ``step`` for a run that will have other ``steps``: what has
    passed stays at its step, so that it does not come again in a longer run."""
    lr: dict[Place, float] = {}  # of two stages that begin at once the later one holds
    for place, rate in before.lr:
        began = step_at(place, before.steps)
        if began <= step:
            lr[began] = rate
        else:
            lr[place if step_at(place, steps) >= step else step] = rate
    warmup = step_at(before.warmup, before.steps)
    return {"lr": tuple(lr.items()), "warmup": warmup if warmup <= step else before.warmup}


def next_rates(checkpoint: Checkpoint, config: TrainConfig) -> tuple[float, float]:
    """The learning rate of the next step as the run had planned it, and under ``config``."""
    planned, rate = (
        settings.learning_rates(checkpoint.step, 1).item()
        for settings in (checkpoint.config, config)
    )
    return planned, rate
