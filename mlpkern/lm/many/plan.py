"""The plan of a population: a grid of settings and single models, read from a YAML file.

::

    file: names.txt                 # or data: embedded; also level, running, min_count, lower
    preset: quick
    set: {steps: 2000}              # what all models share
    grid:                           # every combination; the last key varies fastest
      hidden: [100, 200, [200, 100]]
      lr: [0.1, 0.05]
      seed: 0..9
    models:                         # and these
      - {hidden: 300, lr: 0.05, optimizer: adamw}
    keep_best: true                 # also the model with the lowest dev loss of each
    max_points: 200                 # of a loss curve
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpkern.lm.errors import ConfigError, nearest
from mlpkern.lm.model.config import DEFAULT_PRESET, PRESETS, SETTINGS, TrainConfig
from mlpkern.lm.model.setting import Seed, Whole
from mlpkern.lm.plan_file import read_plan_file

WORDS: dict[str, type] = {
    "file": str, "data": str, "level": str, "running": bool, "min_count": int, "lower": bool,
    "max_word_length": int,
}  # fmt: skip
KEYS = (*WORDS, "preset", "set", "grid", "models", "keep_best", "max_points")
MOST_MODELS = 100_000
OfText = Callable[[str, str], Any]


@dataclass(frozen=True)
class PopulationPlan:
    """What to train, on which words.

    Attributes:
        configs: the settings of each model; the grid first
        words: what the plan says of the words, by the keys `WORDS`
        keep_best: whether the best model of each is kept too
        max_points: the largest number of points in a loss curve
    """

    configs: tuple[TrainConfig, ...]
    words: dict[str, Any]
    keep_best: bool = False
    max_points: int = 200


def read_population_plan(path: str | Path, of_text: OfText) -> PopulationPlan:
    """The plan in the YAML file ``path``; ConfigError for any fault in it.

    ``of_text(name, text)``: the value of a setting that stands there as text, as on a command line.
    """
    values = read_plan_file(path)
    try:
        return _plan(values, of_text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _plan(values: Mapping[str, Any], of_text: OfText) -> PopulationPlan:
    if unknown := sorted(set(map(str, values)) - set(KEYS)):
        raise ConfigError(f"unknown keys {', '.join(unknown)}; the keys are {', '.join(KEYS)}")
    preset = values.get("preset", DEFAULT_PRESET)
    if preset not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    base = _changed(PRESETS[preset], "set", values.get("set") or {}, of_text)
    configs = _grid(base, values["grid"], of_text) if values.get("grid") else []
    single = values.get("models") or []
    if not isinstance(single, list):
        raise ConfigError(f"models must be a list of settings, got {single!r}")
    configs += [_changed(base, f"models: {i}", one, of_text) for i, one in enumerate(single)]
    if not configs:
        raise ConfigError("nothing to train; give grid, models or both")
    first: dict[TrainConfig, int] = {}
    for i, config in enumerate(configs):
        if (same := first.setdefault(config, i)) != i:
            raise ConfigError(f"models {same} and {i} have the same settings")
    if len({config.split_seed for config in configs}) > 1:
        raise ConfigError("split_seed must be the same for all models: they share their splits")
    keep_best, points = values.get("keep_best", False), values.get("max_points", 200)
    if not isinstance(keep_best, bool):
        raise ConfigError(f"keep_best must be true or false, got {keep_best!r}")
    return PopulationPlan(
        tuple(configs), _words(values), keep_best, Whole(1).checked("max_points", points) or 1
    )


def _words(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the words; ConfigError for a value of another type."""
    given = {name: values[name] for name in WORDS if values.get(name) is not None}
    for name, value in given.items():
        if type(value) is not WORDS[name]:
            raise ConfigError(f"{name} must be of type {WORDS[name].__name__}, got {value!r}")
    if {"file", "data"} <= set(given):
        raise ConfigError("file and data: give one of them")
    if given.get("data", "embedded") not in ("embedded", "makemore"):
        raise ConfigError(f"data must be embedded or makemore, got {given['data']!r}")
    return given


def _grid(base: TrainConfig, grid: Any, of_text: OfText) -> list[TrainConfig]:
    """Every combination of the values of ``grid``."""
    if not isinstance(grid, Mapping):
        raise ConfigError(f"grid must map names of settings to lists of values, got {grid!r}")
    axes = {str(name): _axis(str(name), values) for name, values in grid.items()}
    if (count := math.prod(map(len, axes.values()))) > MOST_MODELS:
        raise ConfigError(f"grid: {count:,} models; at most {MOST_MODELS:,}")
    return [
        _changed(base, "grid", dict(zip(axes, point, strict=True)), of_text)
        for point in itertools.product(*axes.values())
    ]


def _axis(name: str, values: Any) -> list[Any]:
    """The values of a setting of the grid: a list, or the whole numbers of a range."""
    if isinstance(values, list) and values:
        return values
    kind = SETTINGS[name].kind if name in SETTINGS else None
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", str(values))
    if isinstance(kind, (Whole, Seed)) and ends and int(ends[1]) <= int(ends[2]):
        if (count := int(ends[2]) - int(ends[1]) + 1) > MOST_MODELS:
            raise ConfigError(f"grid: {name}: {count:,} values; at most {MOST_MODELS:,}")
        return list(range(int(ends[1]), int(ends[2]) + 1))
    raise ConfigError(
        f"grid: {name} must be a list of values, or whole numbers as in 0..9, got {values!r}"
    )


def _changed(base: TrainConfig, where: str, given: Any, of_text: OfText) -> TrainConfig:
    """``base`` with the settings ``given``."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} must map names of settings to values, got {given!r}")
    if unknown := sorted(set(map(str, given)) - set(SETTINGS)):
        raise ConfigError(f"{where}: no setting {unknown[0]}{nearest(unknown[0], SETTINGS)}")
    try:
        read = {n: of_text(n, v) if isinstance(v, str) else v for n, v in given.items()}
        return base.with_settings(**read)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from None
