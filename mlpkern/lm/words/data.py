"""Words to training examples: words -> split by word -> context windows.

As in the lecture, a word of L symbols gives L + 1 examples: the T symbols before a position, and
the symbol at that position. The boundary "." (id 0) pads the first contexts and ends the word::

    emma, T=3:  ... -> e    ..e -> m    .em -> m    emm -> a    mma -> .

At level "word" (text.py) the words are sequences of tokens and the symbols are tokens; a sequence
is one string with spaces between its tokens. The boundary is "<s>", and id 1 is "<unk>".

Sizes: T context length, V vocabulary, rows = number of examples.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlpkern.lm.arguments import check_kind, word_list
from mlpkern.lm.errors import ConfigError, DataError
from mlpkern.lm.memory import check_fits
from mlpkern.lm.words.text import TextOptions
from mlpkern.lm.words.vocab import Vocab

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Split:
    """Examples of a split: ``inputs`` (rows, T) and ``targets`` (rows,), both ``Vocab.dtype``."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return self.targets.shape[0]

    def to(self, device: torch.device | str) -> Split:
        """The same examples on another device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """The three splits of a list of words, the vocabulary, and a digest of the words."""

    vocab: Vocab
    splits: dict[str, Split]
    words: dict[str, list[str]]
    digest: str

    @property
    def block_size(self) -> int:
        """T, symbols of context."""
        return self.splits["train"].inputs.shape[1]

    def splits_for(self, block_size: int) -> dict[str, Split]:
        """The splits with contexts of ``block_size`` symbols, on the device of this dataset."""
        if block_size == self.block_size:
            return self.splits
        device = self.splits["train"].targets.device
        return {
            name: windows(part, self.vocab, block_size).to(device)
            for name, part in self.words.items()
        }

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset with its splits on another device."""
        moved = {name: split.to(device) for name, split in self.splits.items()}
        return Dataset(self.vocab, moved, self.words, self.digest)


def split_words(
    words: Sequence[str], *, seed: int = 42, source: str = "words", unit: str = "words"
) -> dict[str, list[str]]:
    """Train, dev and test words: shuffled, then cut at 80 % and 90 %.

    The order is that of ``random.seed(seed); random.shuffle(words)`` in the lecture; the global
    generator of Python is not used. DataError if a split would be empty; its message calls the
    words ``unit``.
    """
    shuffled = word_list("split_words", words)
    random.Random(seed).shuffle(shuffled)
    first, second = int(0.8 * len(shuffled)), int(0.9 * len(shuffled))
    parts = (shuffled[:first], shuffled[first:second], shuffled[second:])
    if not all(parts):
        counts = "/".join(str(len(part)) for part in parts)
        raise DataError(
            f"{source}: too few {unit} ({len(shuffled)}): train/dev/test would get {counts}, each "
            f"needs at least one (10 {unit} are always enough)"
        )
    return dict(zip(SPLITS, parts, strict=True))


def windows(words: Sequence[str], vocab: Vocab, block_size: int) -> Split:
    """Every example of ``words`` in order: contexts of ``block_size`` ids and the id that follows.

    The words form one stream, each after T boundaries, the first of which also ends the word
    before; a context is a window of this stream. DataError for a symbol outside ``vocab``; at level
    "word" it becomes ``<unk>``.
    """
    words = word_list("windows", words)
    if block_size < 1:
        raise ConfigError(f"block_size must be at least 1, got {block_size}")
    length = len if vocab.level == "char" else lambda sequence: sequence.count(" ") + 1
    lengths = np.fromiter(map(length, words), dtype=np.int64, count=len(words))
    width = vocab.dtype.itemsize
    size = int((lengths + 1).sum()) * block_size * width
    check_fits(f"block_size {block_size}: the array of contexts", size)
    starts = np.cumsum(lengths + block_size) - (lengths + block_size)  # of each word's T boundaries
    letters = _encode_all(words, vocab)
    rows = lengths + 1
    # position of example r: its word's start plus its place in the word
    positions = np.repeat(starts - (np.cumsum(rows) - rows), rows) + np.arange(rows.sum())
    stream = np.zeros(int(lengths.sum()) + block_size * len(words) + 1, dtype=letters.dtype)
    ends_word = np.zeros(len(positions), dtype=bool)
    ends_word[np.cumsum(rows) - 1] = True
    stream[positions[~ends_word] + block_size] = letters
    inputs = np.lib.stride_tricks.sliding_window_view(stream, block_size)[positions]
    targets = stream[positions + block_size]
    return Split(torch.from_numpy(inputs), torch.from_numpy(targets))


def build_dataset(
    words: Sequence[str],
    *,
    block_size: int,
    split_seed: int = 42,
    source: str = "words",
    text: TextOptions | None = None,
    vocab: Vocab | None = None,
) -> Dataset:
    """Vocabulary, splits and windows of ``words``, a list as `read_words` returns it.

    Args:
        text: the options that the words were read with; None: level "char".
        vocab: at level "word" the vocabulary of a model; None: a new one from the train split.
    """
    words = word_list("build_dataset", words)
    options = TextOptions() if text is None else text
    check_kind("build_dataset", "text", options, TextOptions, 'as in TextOptions(level="word")')
    if options.level == "char":
        vocab = Vocab.from_words(words, lower=options.lower)
    parts = split_words(words, seed=split_seed, source=source, unit=options.unit)
    if vocab is None:
        vocab = Vocab.from_sequences(parts["train"], options, source=source)
    splits = {name: windows(part, vocab, block_size) for name, part in parts.items()}
    return Dataset(vocab, splits, parts, digest_of(words, options))


def digest_of(words: Sequence[str], text: TextOptions) -> str:
    """The SHA-256 of ``words``, in their order, and of how they were read, if not as usual."""
    digest = hashlib.sha256("\n".join(words).encode())
    if text != TextOptions():
        digest.update(json.dumps(text.to_json()).encode())
    return digest.hexdigest()


def _encode_all(words: Sequence[str], vocab: Vocab) -> np.ndarray:
    """The ids of all symbols of all words, one after the other, in ``vocab.dtype``."""
    dtype = {torch.uint8: np.uint8, torch.int16: np.int16, torch.int32: np.int32}[vocab.dtype]
    if vocab.level == "word":
        return np.fromiter(vocab.ids_as_read(words), dtype=dtype)
    points = np.frombuffer("".join(words).encode("utf-32-le"), dtype=np.uint32)
    table = np.full(int(points.max(initial=0)) + 1, -1, dtype=np.int64)
    for i, symbol in enumerate(vocab.symbols[1:], 1):
        if ord(symbol) < len(table):
            table[ord(symbol)] = i
    ids = table[points]
    if (ids < 0).any():
        symbol = chr(int(points[int(np.argmin(ids))]))
        raise DataError(f"symbol {symbol!r} is not in the vocabulary")
    return ids.astype(dtype)
