"""How a text is read: as a list of words, symbol by symbol, or as sentences, word by word.

Level "char": every line is a word, and its symbols are its characters (data.py).

Level "word": a sequence is a line or, in running text, a paragraph. Its symbols are its tokens:

- white space separates tokens; a punctuation mark or sign (Unicode P or S) is a token of its own,
  except an apostrophe or hyphen between two letters: ``don't``, ``well-known``
- ``<unk>``, which stands for every word that the model does not know, is one token

Running text is cut into paragraphs (at blank lines), and is not one stream of the whole file: so a
boundary has a meaning that a model can learn, samples end by themselves, and the splits come from
all over the text. Line ends within a paragraph are spaces. A paragraph of more than 256 tokens,
possibly a whole file, is cut after every 256.

>>> tokens("Don't panic: it's a well-known <unk>, isn't it?")
["Don't", 'panic', ':', "it's", 'a', 'well-known', '<unk>', ',', "isn't", 'it', '?']
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from mlpkern.lm.errors import ConfigError, DataError

# the symbol with id 0, which begins and ends a sequence; no token of a text equals it
BOUNDARIES = {"char": ".", "word": "<s>"}
LEVELS = tuple(BOUNDARIES)
UNKNOWN = "<unk>"
MAX_PARAGRAPH = 256  # tokens
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f]")


@dataclass(frozen=True)
class TextOptions:
    """How a text becomes sequences of symbols.

    Attributes:
        level: "char" or "word": what a symbol is
        lower: whether the text is converted to lower case
        running: level word: a sequence is a paragraph, or a part of a long one, not a line
        min_count: level word: tokens that are rarer in the train split become ``<unk>``; >= 1

    With ``min_count`` 1 no ``<unk>`` occurs in the train split, and a model cannot learn how likely
    an unknown word is.
    """

    level: str = "char"
    lower: bool = False
    running: bool = False
    min_count: int = 2

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(f"level must be one of {', '.join(LEVELS)}, got {self.level!r}")
        if self.running and self.level != "word":
            raise ConfigError(f"running text needs level word, got {self.level}")
        if self.min_count < 1:
            raise ConfigError(f"min_count must be at least 1, got {self.min_count}")

    @property
    def unit(self) -> str:
        """What messages call the sequences."""
        return "words" if self.level == "char" else "paragraphs" if self.running else "lines"

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextOptions:
        """The options that `to_json` wrote."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"options of the text: {error}") from None


def tokens(text: str) -> list[str]:
    """The tokens of ``text``, by the rule above; none of them contains white space."""
    return _pattern().findall(text)


def sequences(text: str, source: str, options: TextOptions) -> list[str]:
    """The sequences of ``text`` at level word, each as its tokens with one space between them.

    DataError, with the line, for a control character; DataError for a text without tokens.
    """
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise DataError(
            f"{source}, line {line}: control character U+{ord(control[0]):04X}; "
            "is this a text file?"
        )
    pieces = re.split(r"\n\s*\n", text) if options.running else text.split("\n")
    found = []
    for of_piece in map(tokens, pieces):
        most = MAX_PARAGRAPH if options.running else max(1, len(of_piece))
        found += [" ".join(of_piece[i : i + most]) for i in range(0, len(of_piece), most)]
    if not found:
        raise DataError(f"{source}: holds no words")
    return found


@functools.cache
def _pattern() -> re.Pattern[str]:
    # The re module knows no Unicode categories. Its sets are fast within the first plane and slow
    # beyond it, so of the other planes only the pictographs count as signs.
    first_plane = map(chr, range(0x10000))
    signs = "".join(re.escape(c) for c in first_plane if unicodedata.category(c)[0] in "PS")
    signs += "\U0001f000-\U0001faff"
    word = rf"[^\s{signs}]+"
    # a variation selector belongs to the sign before it
    return re.compile(rf"{UNKNOWN}|{word}(?:['’-]{word})*|[{signs}]\uFE0F?")
