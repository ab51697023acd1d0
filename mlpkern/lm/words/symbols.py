"""Symbols as people read them: what stands for one in a table or a plot, and which are vowels."""

from __future__ import annotations

import unicodedata

__all__ = ["is_vowel", "shown", "shown_all"]

# Latin, Greek and Cyrillic; accents are taken off before the comparison
_VOWELS = frozenset("aeiouæœøıαεηιουωаеиоуыэюяєіїё")
_STAND_INS = {" ": "␣", "\t": "⇥", "\u00a0": "⍽"}


def shown(symbol: str) -> str:
    """``symbol`` with something to see: a sign for blanks, a circle under combining marks, the code
    point for what has no picture.

    >>> shown("a"), shown(" "), shown("\\u0301"), shown("\\u200b")
    ('a', '␣', '◌́', 'U+200B')
    """
    if symbol in _STAND_INS:
        return _STAND_INS[symbol]
    if len(symbol) == 1:
        if unicodedata.combining(symbol):
            return "◌" + symbol
        if unicodedata.category(symbol)[0] in "CZ":
            return f"U+{ord(symbol):04X}"
    return symbol


def shown_all(symbols: tuple[str, ...] | list[str]) -> str:
    """A sequence of symbols: letters side by side, longer symbols with spaces between.

    >>> shown_all(["e", "m", "m", "a"]), shown_all(["the", "cat"])
    ('emma', 'the cat')
    """
    joint = " " if any(len(symbol) > 1 for symbol in symbols) else ""
    return joint.join(map(shown, symbols))


def is_vowel(symbol: str) -> bool:
    """Whether ``symbol`` is a Latin, Greek or Cyrillic vowel, with or without an accent; y is none.

    >>> [s for s in "aéyüбя." if is_vowel(s)]
    ['a', 'é', 'ü', 'я']
    """
    base = unicodedata.normalize("NFD", symbol)[:1].lower()
    return len(symbol) == 1 and base in _VOWELS and base != ""
