"""Words for the tests of the language model."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest


def make_words(count: int = 300, seed: int = 0, alphabet: str = "abcdefgh") -> list[str]:
    """Random words of 1 to 9 symbols in which a vowel-like symbol often follows another."""
    rng = random.Random(seed)
    words = []
    for _ in range(count):
        word = rng.choice(alphabet)
        for _ in range(rng.randrange(9)):
            step = 1 if rng.random() < 0.6 else rng.randrange(len(alphabet))
            word += alphabet[(alphabet.index(word[-1]) + step) % len(alphabet)]
        words.append(word)
    return words


def makemore_names() -> Path:
    """The makemore names list, or a skip that says where it was looked for."""
    default = Path(__file__).resolve().parents[3] / "../shared/data/names.txt"
    path = Path(os.environ.get("MLPKERN_NAMES", default))
    if not path.is_file():
        pytest.skip(f"no makemore names at {path}; MLPKERN_NAMES can name the file")
    return path
