"""What a list of words consists of, and the examples it gives, as text.

>>> from mlpkern import lm
>>> words = ["emma", "olivia", "ava"] * 4
>>> print(lm.show_windows(words[:1], lm.Vocab.from_words(words), 3))
emma
... ---> e
..e ---> m
.em ---> m
emm ---> a
mma ---> .
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from mlpkern.lm.data import Dataset, Vocab, windows
from mlpkern.lm.symbols import shown, shown_all

__all__ = ["describe_dataset", "in_columns", "show_windows"]

WIDTH = 80


def describe_dataset(dataset: Dataset) -> str:
    """Words, their lengths, the count of every symbol, and the three splits."""
    every = [word for part in dataset.words.values() for word in part]
    lengths = np.array([len(word) for word in every])
    counts = Counter(symbol for word in every for symbol in word)
    counts[dataset.vocab.symbols[0]] = len(every)
    lines = [
        f"words    {len(every)}, {len(set(every))} of them distinct",
        f"length   {lengths.min()} to {lengths.max()} symbols, mean {lengths.mean():.2f}",
        f"symbols  {len(dataset.vocab)} with the boundary; how often each occurs:",
        *_counts([(shown(s), counts[s]) for s in dataset.vocab.symbols]),
        "split    words     rows",
    ]
    for name, split in dataset.splits.items():
        lines.append(f"{name:<6}{len(dataset.words[name]):>8}{len(split):>9}")
    return "\n".join(lines)


def show_windows(words: Sequence[str], vocab: Vocab, block_size: int) -> str:
    """Every example of ``words`` as the lecture prints them: the word, then context and label."""
    split = windows(words, vocab, block_size)
    lines, rows, word = [], [], []
    for context, target in zip(split.inputs.tolist(), split.targets.tolist(), strict=True):
        label = vocab.symbols[target]
        rows.append(f"{shown_all([vocab.symbols[i] for i in context])} ---> {shown(label)}")
        if target != 0:
            word.append(label)
            continue
        lines += [shown_all(word), *rows]
        rows, word = [], []
    return "\n".join(lines)


def in_columns(cells: Iterable[str]) -> list[str]:
    """``cells`` of one width in lines of at most `WIDTH`, read downwards."""
    cells = list(cells)
    across = max(1, (WIDTH + 2) // (max(map(len, cells)) + 4))
    down = -(-len(cells) // across)
    return ["  " + "    ".join(cells[i::down]) for i in range(down)]


def _counts(pairs: list[tuple[str, int]]) -> list[str]:
    """(symbol, count) in columns."""
    wide = max(len(symbol) for symbol, _ in pairs)
    digits = max(len(str(count)) for _, count in pairs)
    return in_columns(f"{symbol:<{wide}} {count:>{digits}}" for symbol, count in pairs)
