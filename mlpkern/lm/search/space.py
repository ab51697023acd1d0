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

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.config import SETTINGS, TrainConfig
from mlpkern.lm.model.setting import Widths

_KINDS = {name: about.kind for name, about in SETTINGS.items() if about.searchable}

Value = int | float | str


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
    is a width, or "200+100" for two layers. Raises ConfigError for unknown names and impossible
    bounds.
    """

    entries: dict[str, Choice | Range]

    def __post_init__(self) -> None:
        if not self.entries:
            raise ConfigError("sweep: the search space is empty")
        for name, entry in self.entries.items():
            if name not in _KINDS:
                raise ConfigError(
                    f"sweep: {name} cannot be searched; the names are {', '.join(_KINDS)}"
                )
            if isinstance(entry, Range):
                _check_range(name, entry)
            else:
                _check_choice(name, entry)

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
    """Entries from text, ``NAME=LOW:HIGH[:log]`` or ``NAME=A,B,C`` each; the last of a name holds.

    >>> parse_entries(["lr=0.001:0.01:log", "hidden=128,256"])
    {'lr': Range(low=0.001, high=0.01, log=True), 'hidden': Choice(values=(128, 256))}
    """
    entries: dict[str, Choice | Range] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        parts = rest.split(":")
        if len(parts) == 1 and rest:
            entries[name] = Choice(tuple(_parsed(name, part) for part in rest.split(",")))
        elif len(parts) == 2 or (len(parts) == 3 and parts[2] == "log"):
            try:
                entries[name] = Range(float(parts[0]), float(parts[1]), len(parts) == 3)
            except ValueError:
                raise ConfigError(f"sweep: {text}: the bounds must be numbers") from None
        else:
            raise ConfigError(f"sweep: expected NAME=LOW:HIGH[:log] or NAME=A,B,C, got {text!r}")
    return entries


def _parsed(name: str, text: str) -> Value:
    kind = _KINDS.get(name)
    try:
        return kind.searched(text) if kind else text
    except ValueError:
        if isinstance(kind, Widths):
            return text
        raise ConfigError(f"sweep: {name}: expected a number, got {text!r}") from None


def _flat(name: str, value: Any) -> Value:
    """A choice in a type that Optuna can store: a list of widths becomes text."""
    if isinstance(_KINDS.get(name), Widths) and isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return value


def _check_range(name: str, entry: Range) -> None:
    low, high = entry.low, entry.high
    searched = _KINDS[name].searched
    if searched is str:
        raise ConfigError(f"sweep: {name} must be a list of choices, it is no number")
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
