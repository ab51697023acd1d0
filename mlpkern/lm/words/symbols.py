"""How a symbol is shown in a table or a plot, and whether it is a vowel."""

from __future__ import annotations

import unicodedata

# Latin, Greek and Cyrillic; compared after accents are removed
_VOWELS = frozenset("aeiouæœøıαεηιουωаеиоуыэюяєіїё")
_STAND_INS = {" ": "␣", "\t": "⇥", "\u00a0": "⍽"}


def shown(symbol: str) -> str:
    """``symbol`` as something visible: a sign for white space, a circle under a combining mark, the
    code point of a character without a glyph.

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


def is_vowel(symbol: str) -> bool:
    """Whether ``symbol`` is a Latin, Greek or Cyrillic vowel, with or without accent; not y.

    >>> [s for s in "aéyüбя." if is_vowel(s)]
    ['a', 'é', 'ü', 'я']
    """
    base = unicodedata.normalize("NFD", symbol)[:1].lower()
    return len(symbol) == 1 and base in _VOWELS and base != ""
