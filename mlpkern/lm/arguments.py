"""Checks of what public functions are given, where a wrong kind is likely or would go unnoticed.

>>> check_kind("ngram", "dataset", "names.txt", list, "of words")
Traceback (most recent call last):
TypeError: ngram: dataset must be a list, of words, got 'names.txt' (str)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch

from mlpkern.lm.errors import ConfigError


def check_kind(function: str, name: str, value: Any, kind: type, hint: str) -> None:
    """TypeError unless ``value`` is a ``kind``; ``hint``: where to get one."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{function}: {name} must be a {kind.__name__}, {hint}, got {described(value)}"
        )


def described(value: Any) -> str:
    """What an error says it got: the kind and, of text and paths, the value."""
    kind = type(value).__name__
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"{value!r} ({kind})" if isinstance(value, (str, os.PathLike)) else f"a {kind}"


def list_of(function: str, name: str, values: Iterable[Any], hint: str) -> list[Any]:
    """``values`` as a list; TypeError for a single one, as for a string, whose letters are not
    meant."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{function}: {name} must be a list, got {described(values)}; {hint}")
    return list(values)


def word_list(function: str, words: Iterable[str]) -> list[str]:
    """``words`` as a list; TypeError for a string or path."""
    return list_of(function, "words", words, "read_words reads a file")


def as_device(device: torch.device | str) -> torch.device:
    """The device of that name; ConfigError for a name without meaning, and for a GPU that is not
    there."""
    if isinstance(device, torch.device):
        return device
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ConfigError(f"device must be cpu, cuda or cuda:N, got {device!r}") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {device}: torch sees {torch.cuda.device_count()} CUDA devices")
    return found
