"""How a setting of `TrainConfig` is declared: its values, its flag, and who may change it.

>>> Whole(1).checked("steps", 0)
Traceback (most recent call last):
mlpkern.lm.errors.ConfigError: steps must be at least 1, got 0
"""

from __future__ import annotations

import dataclasses
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from mlpkern.lm.errors import ConfigError
from mlpkern.lm.model.schedule import Place, Stages, check_stages, place_text

MOST = 1 << 40  # of any size or count of steps: larger ones overflow in places that say less


class Kind(ABC):
    """Which values a setting has.

    Attributes:
        searched: the type of its values in a search space: int, float or str
    """

    searched: ClassVar[type]

    @property
    @abstractmethod
    def bounds(self) -> str:
        """Which values, in words."""

    @abstractmethod
    def checked(self, name: str, value: Any) -> Any:
        """``value`` of the setting ``name`` as Python's own type, which JSON can hold.

        ConfigError for an impossible value.
        """

    def of_search(self, value: Any) -> Any:
        """What the setting is for a value of a search space."""
        return value


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number from ``low`` to 2^40; None if ``optional``."""

    low: int = 0
    optional: bool = False
    searched = int

    @property
    def bounds(self) -> str:
        return f"at least {self.low}"

    def checked(self, name: str, value: Any) -> int | None:
        if value is None and self.optional:
            return None
        number = _whole(name, value)
        if not self.low <= number <= MOST:
            limit = self.bounds if number < self.low else f"at most {MOST}"
            raise ConfigError(f"{name} must be {limit}, got {number}")
        return number

    def of_search(self, value: Any) -> int:
        return int(value)


class Steps(Kind):
    """A number of steps, or a share of the run: a float below 1."""

    bounds = "steps, or a share of the run below 1"
    searched = int

    def checked(self, name: str, value: Any) -> Place:
        return _place(name, value)

    def of_search(self, value: Any) -> int:
        return int(value)


class Seed(Kind):
    """A seed that torch's generators take: 0 <= seed < 2^64."""

    bounds = "0 to 2^64 - 1"
    searched = int

    def checked(self, name: str, value: Any) -> int:
        check_seed(name, value)
        return _whole(name, value)


@dataclass(frozen=True)
class Real(Kind):
    """A number of a range that ``words`` describe and ``within`` decides; None if ``optional``."""

    words: str
    within: Callable[[float], bool]
    optional: bool = False
    searched = float

    @property
    def bounds(self) -> str:
        return self.words

    def checked(self, name: str, value: Any) -> float | None:
        if value is None and self.optional:
            return None
        if not self.within(number := _number(name, value)):
            raise ConfigError(f"{name} must be {self.words}, got {number}")
        return number


@dataclass(frozen=True)
class OneOf(Kind):
    """One of the words ``values``."""

    values: tuple[str, ...]
    searched = str

    @property
    def bounds(self) -> str:
        return f"one of {', '.join(self.values)}"

    def checked(self, name: str, value: Any) -> str:
        if value not in self.values:
            raise ConfigError(f"{name} must be {self.bounds}, got {value!r}")
        return str(value)


class Widths(Kind):
    """The widths of one layer or more; in a search space a number, or text such as 200+100."""

    bounds = "one width or more, each at least 1"
    searched = int

    def checked(self, name: str, value: Any) -> tuple[int, ...]:
        widths = tuple(_whole(name, width) for width in _several(value))
        if max(widths, default=0) > MOST:
            raise ConfigError(f"{name} must be at most {MOST}, got {list(widths)}")
        if not widths or min(widths) < 1:
            raise ConfigError(f"{name} must be {self.bounds}, got {list(widths)}")
        return widths

    def of_search(self, value: Any) -> tuple[int, ...]:
        try:
            return tuple(int(width) for width in str(value).removesuffix(".0").split("+"))
        except ValueError:
            raise ConfigError(f"expected a width, or widths as in 200+100, got {value!r}") from None


class Rates(Kind):
    """Learning rates and where they begin to hold; in a search space a single rate.

    A number alone is a constant rate.
    """

    bounds = "rates of float32, at rising steps or shares of the run"
    searched = float

    def checked(self, name: str, value: Any) -> Stages:
        try:
            pairs = [(0, value)] if is_single(value) else [(place, rate) for place, rate in value]
        except (TypeError, ValueError):
            raise ConfigError(
                f"{name} must be a rate, or (step or share of the run, rate) pairs as in "
                f"((0, 0.1), (0.75, 0.01)), got {value!r}"
            ) from None
        stages = tuple((_place(name, place), _number(name, rate)) for place, rate in pairs)
        check_stages(stages)
        return stages


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its default.

    Attributes:
        kind: which values it has
        help: help of its flag; {} stands for the default
        group: group of flags, in the help of a command
        metavar: name of the flag's value
        label: label of its axis in a picture; empty: its name
        searchable: whether a sweep may vary it
        per_call: whether models that train in one call must share it
        resumable: whether ``mlpkern train --resume`` may change it
    """

    kind: Kind
    help: str
    group: str
    metavar: str | None = None
    label: str = ""
    searchable: bool = True
    per_call: bool = False
    resumable: bool = False

    def told(self, default: Any) -> str:
        """The help where ``default`` is what holds without the flag."""
        return self.help.format(setting_text(default))


def setting(default: Any, kind: Kind, help: str, group: str, *rest: Any, **more: Any) -> Any:
    """A field of a dataclass that is a `Setting`, whose fields follow the ``default``."""
    about = Setting(kind, help, group, *rest, **more)
    return dataclasses.field(default=default, metadata={"setting": about})


def setting_text(value: Any) -> str:
    """A setting as the command line takes it.

    >>> setting_text((300, 100)), setting_text(((0, 0.1), (100, 0.01))), setting_text(None)
    ('300,100', '0.1,0.01@100', '-')
    >>> setting_text(((0, 0.1), (0.75, 0.01)))
    '0.1,0.01@75%'
    """
    if value is None:
        return "-"
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ",".join(f"{rate:g}@{place_text(at)}" if at else f"{rate:g}" for at, rate in value)
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_seed(name: str, seed: int) -> None:
    """ConfigError unless ``seed`` is one that torch's generators take."""
    if (number := _whole(name, seed)) < 0 or number >= 1 << 64:
        limit = "at least 0" if number < 0 else "below 2^64"
        raise ConfigError(f"{name} must be {limit}, got {seed}")


def is_single(value: Any) -> bool:
    """Whether ``value`` is one number, of Python, numpy or torch, and not several."""
    try:
        iter(value)
    except TypeError:
        return True
    return False


def _several(value: Any) -> Any:
    return [value] if is_single(value) else value


def _place(name: str, value: Any) -> Place:
    """A step as an int; a share of the run as a float above 0 and below 1."""
    try:
        number = operator.index(value)
    except TypeError:
        share = _number(name, value)
        if share == 0:
            return 0
        if not 0 < share < 1:
            raise ConfigError(
                f"{name} must be at a whole step, or at a share of the run below 1, got {value!r}"
            ) from None
        return share
    if not 0 <= number <= MOST:
        limit = "at least 0" if number < 0 else f"at most {MOST}"
        raise ConfigError(f"{name} must be {limit}, got {number}")
    return number


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise ConfigError(f"{name} must be a whole number, got {value!r} ({kind})") from None


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ConfigError(f"{name} must be a number, got {value!r}") from None
