"""The symbols that a model knows, and their ids.

>>> vocab = Vocab.from_words(["emma", "ava"])
>>> vocab.symbols, vocab.encode("eva"), vocab.decode([2, 4, 1, 0])
(('.', 'a', 'e', 'm', 'v'), [2, 4, 1], 'eva')
>>> from mlpkern.lm.words.text import TextOptions
>>> vocab = Vocab.from_sequences(["the cat sat .", "the cat ran ."], TextOptions("word"))
>>> vocab.symbols, vocab.encode("the cat."), vocab.as_read("the dog sat .")
(('<s>', '<unk>', '.', 'cat', 'the'), [4, 3, 2], 'the <unk> <unk> .')
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import torch

from mlpkern.lm.arguments import word_list
from mlpkern.lm.errors import DataError
from mlpkern.lm.words.text import BOUNDARIES, UNKNOWN, TextOptions, tokens

BOUNDARY = BOUNDARIES["char"]


def tokens_of(sequence: str) -> list[str]:
    """The tokens of a sequence of a dataset at level "word"."""
    return sequence.split(" ")


@dataclass(frozen=True)
class Vocab:
    """The symbols that a model knows. The id of a symbol is its place; id 0 is the boundary: "." at
    level "char", "<s>" at level "word", where id 1 is "<unk>".

    ``lower``: the model knows lower case only, and its input is converted to it.
    """

    symbols: tuple[str, ...]
    level: str = "char"
    lower: bool = False

    def __post_init__(self) -> None:
        special = [BOUNDARIES[TextOptions(self.level).level]]
        special += [UNKNOWN] if self.level == "word" else []
        for i, symbol in enumerate(special):
            if self.symbols[i : i + 1] != (symbol,):
                got = self.symbols[i : i + 1]
                raise DataError(f"vocabulary: symbol {i} must be {symbol!r}, got {got}")
        if len(set(self.symbols)) != len(self.symbols):
            raise DataError("vocabulary: a symbol occurs twice")
        object.__setattr__(self, "_ids", {s: i for i, s in enumerate(self.symbols)})

    @classmethod
    def from_words(cls, words: Sequence[str], *, lower: bool = False) -> Vocab:
        """The boundary, then every symbol of ``words`` in code-point order."""
        symbols = set("".join(word_list("Vocab.from_words", words)))
        return cls((BOUNDARY, *sorted(symbols - {BOUNDARY})), lower=lower)

    @classmethod
    def from_sequences(
        cls, train: Sequence[str], options: TextOptions, *, source: str = "text"
    ) -> Vocab:
        """At level "word": the boundary, ``<unk>``, then the tokens that occur at least
        ``min_count`` times in the sequences ``train``, in code-point order; DataError without any.
        """
        counts = Counter(chain.from_iterable(map(tokens_of, train)))
        del counts[UNKNOWN]
        kept = sorted(token for token, n in counts.items() if n >= options.min_count)
        if not kept:
            most = "".join(f"; {t!r} is there {n} times" for t, n in counts.most_common(1))
            raise DataError(
                f"{source}: no word occurs {options.min_count} times in the train split "
                f"(--min-count){most}"
            )
        return cls((BOUNDARIES["word"], UNKNOWN, *kept), "word", options.lower)

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, word: str) -> list[int]:
        """The ids of the symbols of ``word``, or of the tokens of a text; DataError names the first
        that is unknown."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        text = word.lower() if self.lower else word
        symbols = list(text) if self.level == "char" else tokens(text)
        kind = "symbol" if self.level == "char" else "word"
        for place, symbol in enumerate(symbols):
            if symbol not in ids or symbol == self.symbols[0]:
                known = self._joint.join(self.symbols[1:])
                raise DataError(
                    f"{word!r}: {kind} {symbol!r} at position {place} is not one of the "
                    f"{len(self) - 1} the model knows: {known[:60]}{'…' if len(known) > 60 else ''}"
                )
        return [ids[symbol] for symbol in symbols]

    def decode(self, ids: Iterable[int]) -> str:
        """The word that ``ids`` spell, or their tokens with spaces; without boundaries."""
        return self._joint.join(self.symbols[i] for i in ids if i != 0)

    def as_read(self, sequence: str) -> str:
        """A word or sequence of a dataset as the model sees it, unknown tokens as ``<unk>``."""
        if self.level == "char":
            return sequence
        return self.decode(self.ids_as_read([sequence]))

    def ids_as_read(self, sequences: Iterable[str]) -> Iterator[int]:
        """The ids of all tokens of ``sequences`` at level "word", unknown ones as ``<unk>``."""
        ids: dict[str, int] = self._ids  # type: ignore[attr-defined]
        return map(ids.get, chain.from_iterable(map(tokens_of, sequences)), repeat(1))

    @property
    def _joint(self) -> str:
        return "" if self.level == "char" else " "

    @property
    def dtype(self) -> torch.dtype:
        """The smallest torch integer type that holds every id."""
        if len(self) <= 256:
            return torch.uint8
        return torch.int16 if len(self) <= 32768 else torch.int32
