"""Types of arguments: text to value, or an error that says what was expected.

`mlpkern.lm` checks the ranges of values, so that the checks hold in Python as well.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlpkern.lm.model.schedule import Place, Stages

MOST_SIZES = 1_000  # in a range
_EXPONENTS = {"k": "e3", "M": "e6"}


def path(text: str) -> str:
    """The name of a file or folder; not an empty one, which would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected the name of a file or folder, got {text!r}")
    return text


def folder(text: str) -> str:
    """The name of a folder for checkpoints: UTF-8, because safetensors takes no other names."""
    try:
        path(text).encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"expected a name in UTF-8, got {text!r}") from None
    return text


def whole(text: str) -> int:
    """A whole number that fits into 64 bits: ``10000``, ``10k``, ``1.5M``."""
    try:
        return _whole(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a whole number below 2**63, got {text!r}"
        ) from None


def number(text: str) -> float:
    """A finite number."""
    try:
        return _finite(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}") from None


def widths(text: str) -> tuple[int, ...]:
    """``300,100`` -> (300, 100)."""
    try:
        return tuple(_whole(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected widths as in 200 or 300,100, got {text!r}"
        ) from None


def steps(text: str) -> Place:
    """``500`` -> 500; ``2.5%`` of the run, or ``0.025`` -> 0.025."""
    try:
        return _place(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected steps, or a share of the run below 100%, as in 500, 1k or 2.5%, got {text!r}"
        ) from None


def schedule(text: str) -> float | Stages:
    """``0.1,0.01@75%`` -> ((0, 0.1), (0.75, 0.01)); a rate alone is a number."""
    try:
        if not {",", "@"} & set(text):
            return float(text)
        entries = [part.split("@") for part in text.split(",")]
        return tuple((_place(*place) if place else 0, float(lr)) for lr, *place in entries)
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"expected learning rates as in 0.1, 0.1,0.01@75% or 0.1,0.01@10k, got {text!r}"
        ) from None


def sizes(text: str) -> tuple[int, ...]:
    """``2`` -> (2,); ``1..5`` -> (1, 2, 3, 4, 5)."""
    try:
        low, *high = map(_whole, text.split(".."))
        last = high[0] if high else low
        if len(high) > 1 or not 0 <= last - low < MOST_SIZES:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number or a range as in 2 or 1..5, got {text!r}"
        ) from None
    return tuple(range(low, last + 1))


def shares(text: str) -> tuple[float, ...]:
    """``0.2,0.5`` -> (0.2, 0.5); nothing -> ()."""
    try:
        return tuple(_finite(part) for part in text.split(",") if part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected shares as in 0.2,0.5, got {text!r}") from None


def _whole(text: str) -> int:
    exponent = _EXPONENTS.get(text[-1:])
    value = float(text[:-1] + exponent) if exponent else int(text)
    if not -(2**63) <= value < 2**63 or value != int(value):
        raise ValueError
    return int(value)


def _place(text: str) -> Place:
    """A step, or a share of the steps below 1."""
    if text.endswith("%"):
        share = _finite(text[:-1] + "e-2")
    else:
        try:
            return _whole(text)
        except ValueError:
            share = _finite(text)
    if not 0 <= share < 1:
        raise ValueError
    return share or 0


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value
