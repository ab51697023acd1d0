"""A list of words described as text: its size, its symbols, and its first examples.

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

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from mlpkern.lm.arguments import check_kind
from mlpkern.lm.words.data import Dataset, Vocab, windows
from mlpkern.lm.words.symbols import shown

WIDTH = 80
MOST_TOKENS = 60  # at level "word" only so many are shown, the most frequent


def describe_dataset(dataset: Dataset) -> str:
    """The number of words or sequences, their lengths, the count of every symbol or of the most
    frequent tokens, and the sizes of the three splits."""
    check_kind("describe_dataset", "dataset", dataset, Dataset, "as build_dataset makes it")
    every = [word for part in dataset.words.values() for word in part]
    vocab = dataset.vocab
    targets = torch.cat([split.targets.cpu() for split in dataset.splits.values()]).numpy()
    lengths = np.diff(np.flatnonzero(targets == 0), prepend=-1) - 1
    counts = np.bincount(targets, minlength=len(vocab)).tolist()
    order = list(range(len(vocab)))
    many, inside, how = "words", "symbols", "how often each occurs"
    if vocab.level == "word":
        many, inside, how = "texts", "tokens ", "the most frequent"
        order = sorted(order, key=lambda i: -counts[i])[:MOST_TOKENS]
    lines = [
        f"{many}    {len(every)}, {len(set(every))} of them distinct",
        f"length   {lengths.min()} to {lengths.max()} {inside.strip()}, mean {lengths.mean():.2f}",
        f"{inside}  {len(vocab)} with the boundary; {how}:",
        *_counts([(shown(vocab.symbols[i]), counts[i]) for i in order]),
        f"split    {many}     rows",
    ]
    for name, split in dataset.splits.items():
        lines.append(f"{name:<6}{len(dataset.words[name]):>8}{len(split):>9}")
    return "\n".join(lines)


def show_windows(words: Sequence[str], vocab: Vocab, block_size: int) -> str:
    """Every example of ``words`` as the lecture prints it: the word, then contexts and labels."""
    split = windows(words, vocab, block_size)
    between = " " if vocab.level == "word" else ""
    lines, rows, word = [], [], []
    for context, target in zip(split.inputs.tolist(), split.targets.tolist(), strict=True):
        before = between.join(shown(vocab.symbols[i]) for i in context)
        label = shown(vocab.symbols[target])
        rows.append(f"{before} ---> {label}")
        if target != 0:
            word.append(label)
            continue
        lines += [between.join(word), *rows]
        rows, word = [], []
    return "\n".join(lines)


def in_columns(cells: Iterable[str]) -> list[str]:
    """``cells``, all of one width, in columns on lines of at most `WIDTH`, read downwards."""
    cells = list(cells)
    across = max(1, (WIDTH + 2) // (max(map(len, cells)) + 4))
    down = -(-len(cells) // across)
    return ["  " + "    ".join(cells[i::down]) for i in range(down)]


def _counts(pairs: list[tuple[str, int]]) -> list[str]:
    """(symbol, count) in columns."""
    wide = max(len(symbol) for symbol, _ in pairs)
    digits = max(len(str(count)) for _, count in pairs)
    return in_columns(f"{symbol:<{wide}} {count:>{digits}}" for symbol, count in pairs)
