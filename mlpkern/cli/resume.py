"""What ``mlpkern train --resume`` may change of a run, and what that does to the learning rate."""

from __future__ import annotations

import argparse
import dataclasses

from mlpkern.cli.session import given_settings
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.saved.checkpoint import Checkpoint

__all__ = ["rate_change", "resumed_config"]

# what --resume may change: how far and how often, and the learning rate of what is to come
_CHANGEABLE = {
    "steps", "lr", "schedule", "warmup", "log_every", "eval_every", "checkpoint_every", "patience",
}  # fmt: skip
# what it cannot change: where the run lies, and how its text is read
_FIXED = (
    "out", "preset", "force", "max_word_length", "level", "lower", "running", "min_count",
)  # fmt: skip


def resumed_config(args: argparse.Namespace, checkpoint: Checkpoint) -> TrainConfig:
    """The settings of the rest of a run: those of ``checkpoint`` with what ``args`` give.

    ConfigError for what cannot be changed, and where more steps alone would raise the learning
    rate, as they do on a cosine that has fallen: that undoes what the low rate has reached, so
    --schedule or --lr must say that it is wanted.
    """
    for flag in _FIXED:
        if (value := getattr(args, flag)) is not None and value is not False:
            raise ConfigError(f"--{flag.replace('_', '-')} does not go with --resume")
    given = given_settings(args)
    for name, value in given.items():
        before = getattr(checkpoint.config, name)
        if name not in _CHANGEABLE and value != before:
            shown, was = (",".join(map(str, v)) if name == "hidden" else v for v in (value, before))
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {shown}: {args.resume} was begun with {was}")
    config = dataclasses.replace(checkpoint.config, **given)
    if config.steps < checkpoint.step:
        raise ConfigError(f"--steps {config.steps}: {args.resume} is at step {checkpoint.step}")
    if config.steps != checkpoint.config.steps and not {"lr", "schedule"} & set(given):
        planned, rate = _next_rates(checkpoint, config)
        if rate > planned:
            raise ConfigError(
                f"--steps {config.steps} stretches the cosine: the learning rate would rise from "
                f"{planned:.3g} to {rate:.3g} at step {checkpoint.step}; accept that with "
                "--schedule cosine, or choose rates with --schedule staged --lr LR"
            )
    return config


def rate_change(checkpoint: Checkpoint, config: TrainConfig) -> str | None:
    """A line about the learning rate of the next step under ``config``; None where it is the one
    that the run of ``checkpoint`` had planned, or no step is left."""
    planned, rate = _next_rates(checkpoint, config)
    if rate == planned or checkpoint.step == config.steps:
        return None
    over = f"{config.schedule} over {config.steps} steps"
    warm = f", warm-up {config.warmup}" if config.warmup else ""
    return (
        f"lr      {rate:.3g} from step {checkpoint.step} on, where the run had planned "
        f"{planned:.3g}: {over}{warm}; --lr and --schedule choose others"
    )


def _next_rates(checkpoint: Checkpoint, config: TrainConfig) -> tuple[float, float]:
    """The learning rate of the next step as the run had planned it, and under ``config``."""
    planned, rate = (
        settings.learning_rates(checkpoint.step, 1).item()
        for settings in (checkpoint.config, config)
    )
    return planned, rate
