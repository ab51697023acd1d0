"""What a sweep varies: ranges and choices of the settings of `TrainConfig`.

>>> from mlpkern import lm
>>> space = lm.SearchSpace.from_json(
...     {"lr": {"low": 0.001, "high": 0.01, "log": True}, "hidden": [128, 256, [200, 100]]}
... )
>>> config = space.config(lm.TrainConfig(lr=0.1), {"lr": 0.002, "hidden": "200+100"})
>>> config.hidden, config.lr
((200, 100), ((0, 0.002),))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlpkern.lm.errors import ConfigError, nearest
from mlpkern.lm.model.config import SETTINGS, TrainConfig
from mlpkern.lm.model.setting import Seed, Widths

_KINDS = {name: about.kind for name, about in SETTINGS.items() if about.searchable}

Value = int | float | str

FORMS = "NAME=LOW:HIGH[:log], NAME=A,B,C or NAME=A..B as in lr=0.001:0.03:log"
MOST_CHOICES = 1_000


@dataclass(frozen=True)
class Choice:
    """One of ``values``."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class Range:
    """A number from ``low`` to ``high``; evenly in its logarithm with ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class SearchSpace:
    """Names of settings and what each may be.

    ``lr`` is a single rate, which scales the schedule of the fixed settings; a value of ``hidden``
    is a width, or "200+100" for two layers. Where ``seed`` has choices, everything else is trained
    with each of them and judged by the mean. Raises ConfigError for unknown names and impossible
    bounds.
    """

    entries: dict[str, Choice | Range]

    def __post_init__(self) -> None:
        if not self.entries:
            raise ConfigError("sweep: the search space is empty")
        for name, entry in self.entries.items():
            _check_name(name)
            if isinstance(entry, Range):
                _check_range(name, entry)
            else:
                _check_choice(name, entry)

    @property
    def seeds(self) -> tuple[Value, ...]:
        """The seeds with which everything else is trained; empty if those are not searched."""
        entry = self.entries.get("seed")
        return entry.values if isinstance(entry, Choice) else ()

    def config(self, base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
        """``base`` with ``values`` of the space; momentum is 0 where the optimizer is adamw."""
        settings = {name: _KINDS[name].of_search(value) for name, value in values.items()}
        if settings.get("optimizer", base.optimizer) == "adamw":
            settings["momentum"] = 0.0
        return base.with_settings(**settings)

    def check(self, base: TrainConfig) -> None:
        """ConfigError for a choice or bound that is invalid with the fixed settings of ``base``."""
        for name, entry in self.entries.items():
            # TrainConfig checks values: if both ends are valid, the values between them are
            for value in entry.values if isinstance(entry, Choice) else (entry.low, entry.high):
                try:
                    self.config(base, {name: value})
                except ConfigError as error:
                    raise ConfigError(f"sweep: {name}={value}: {error}") from None

    def without(self, names: Mapping[str, Any]) -> SearchSpace:
        """The space without ``names``, which are then fixed."""
        return SearchSpace({n: entry for n, entry in self.entries.items() if n not in names})

    def to_json(self) -> dict[str, Any]:
        """A list of choices or {"low", "high", "log"} for each name."""
        return {
            name: list(entry.values) if isinstance(entry, Choice) else dataclasses.asdict(entry)
            for name, entry in self.entries.items()
        }

    @classmethod
    def from_json(cls, values: Any) -> SearchSpace:
        """The space that `to_json` gives; ConfigError for another form."""
        if not isinstance(values, Mapping):
            raise ConfigError("sweep: search must map names of settings to ranges or lists")
        entries: dict[str, Choice | Range] = {}
        for name, value in values.items():
            if isinstance(value, (list, tuple)):
                entries[name] = Choice(tuple(_flat(name, one) for one in value))
            elif isinstance(value, Mapping) and {"low", "high"} <= set(value) <= {
                "low", "high", "log",
            }:  # fmt: skip
                try:
                    low, high = float(value["low"]), float(value["high"])
                except (TypeError, ValueError):
                    raise ConfigError(f"sweep: {name}: low and high must be numbers") from None
                entries[name] = Range(low, high, bool(value.get("log", False)))
            else:
                raise ConfigError(
                    f"sweep: {name} must be a list of choices or {{low, high, log}}, got {value!r}"
                )
        return cls(entries)

    def distributions(self) -> dict[str, Any]:
        """The space as Optuna describes it."""
        from optuna import distributions as of

        found: dict[str, Any] = {}
        for name, entry in self.entries.items():
            if isinstance(entry, Choice):
                found[name] = of.CategoricalDistribution(entry.values)
            elif _KINDS[name].searched is int:
                found[name] = of.IntDistribution(int(entry.low), int(entry.high), log=entry.log)
            else:
                found[name] = of.FloatDistribution(entry.low, entry.high, log=entry.log)
        return found


def parse_entries(texts: Sequence[str]) -> dict[str, Choice | Range]:
    """Entries from text; the last of a name holds. ``A..B`` are all whole numbers from A to B.

    >>> parse_entries(["lr=0.001:0.01:log", "hidden=128,256", "seed=0..2"])
    {'lr': Range(low=0.001, high=0.01, log=True), 'hidden': Choice(values=(128, 256)), \
'seed': Choice(values=(0, 1, 2))}
    """
    entries: dict[str, Choice | Range] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        name, bounds = name.replace("-", "_"), rest.split(":")
        if name and rest:
            _check_name(name)
        try:
            if len(bounds) == 1 and name and rest:
                parts = rest.split(",")
                entries[name] = Choice(tuple(v for part in parts for v in _parsed(name, part)))
            elif len(bounds) == 2 or (len(bounds) == 3 and bounds[2] == "log"):
                entries[name] = Range(float(bounds[0]), float(bounds[1]), len(bounds) == 3)
            else:
                raise ValueError
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"sweep: expected {FORMS}, got {text!r}") from None
    return entries


def _parsed(name: str, text: str) -> Sequence[Value]:
    """The choices that a part of a list stands for; ValueError if it stands for none."""
    kind = _KINDS[name]
    if kind.searched is int and ".." in text:
        low, high = map(int, text.split(".."))
        if not 0 <= high - low < MOST_CHOICES:
            raise ValueError
        return range(low, high + 1)
    try:
        return (kind.searched(text),)
    except ValueError:
        if isinstance(kind, Widths):
            return (text,)
        raise


def _flat(name: str, value: Any) -> Value:
    """A choice in a type that Optuna can store: a list of widths becomes text."""
    if isinstance(_KINDS.get(name), Widths) and isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return value


def _check_name(name: str) -> None:
    if name not in _KINDS:
        raise ConfigError(
            f"sweep: {name} cannot be searched; the names are {', '.join(_KINDS)}"
            f"{nearest(name, _KINDS)}"
        )


def _check_range(name: str, entry: Range) -> None:
    low, high = entry.low, entry.high
    searched = _KINDS[name].searched
    if searched is str:
        raise ConfigError(f"sweep: {name} must be a list of choices, it is no number")
    if isinstance(_KINDS[name], Seed):
        raise ConfigError(f"sweep: {name} must be a list of choices as in {name}=0..4")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"sweep: {name}: expected finite bounds low < high, got {low:g}:{high:g}")
    if entry.log and low <= 0:
        raise ConfigError(f"sweep: {name}: a logarithmic range must begin above 0, got {low:g}")
    if searched is int and (low != int(low) or high != int(high)):
        raise ConfigError(f"sweep: {name} is a whole number, got {low:g}:{high:g}")


def _check_choice(name: str, entry: Choice) -> None:
    if not entry.values:
        raise ConfigError(f"sweep: {name} has no choices")
    if len(set(entry.values)) < len(entry.values):
        raise ConfigError(f"sweep: {name} has a choice twice: {list(entry.values)}")
    kind = _KINDS[name]
    types = (int, float) if kind.searched is float else (kind.searched,)
    for value in entry.values:
        if isinstance(kind, Widths) and isinstance(value, str):
            continue
        if not isinstance(value, types) or isinstance(value, bool):
            raise ConfigError(f"sweep: {name}: {value!r} is not a value it can have")
