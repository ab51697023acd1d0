"""The counting baseline that a model has to beat: n-grams with add-k smoothing.

    p(y | context) = (count(context, y) + k) / (count(context) + k V)

The context is the n-1 symbols before y; k is the value of `K_GRID` with the lowest dev loss. After
a context that does not occur in the train split every symbol has probability 1 / V. Of the V^n
cells, most of which are empty for n > 3, only those that occur are stored, as a trie of sorted
arrays.

Sizes: V vocabulary, N rows. Source: Jurafsky and Martin, "Speech and Language Processing",
3rd edition, section 3.6.2 (add-k smoothing); Karpathy, "Building makemore" part 1 (bigrams).

>>> from mlpkern import lm
>>> dataset = lm.build_dataset(["ab", "abb", "ba", "b", "bab"] * 4, block_size=1)
>>> bigram = lm.ngram(dataset, 2)
>>> bigram.cells, bigram.filled
(9, 7)
>>> bigram.loss(dataset.splits["dev"]) < lm.ngram(dataset, 1).loss(dataset.splits["dev"])
True
>>> lm.sample(bigram, dataset.vocab, 3, seed=1)
['b', 'bb', 'b']
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mlpkern.lm.arguments import check_kind
from mlpkern.lm.errors import ConfigError, DataError
from mlpkern.lm.words.data import Dataset, Split

MAX_N = 5
K_GRID = tuple(10 ** (tenths / 10) for tenths in range(-40, 21))  # 0.0001 to 100


@dataclass(frozen=True)
class NGram:
    """The counts of a train split, and the smoothing k.

    Attributes:
        levels: for j = 1 … n the distinct j-grams, sorted: place of the first j-1 symbols in the
            level before times V, plus the last symbol
        counts: how often each n-gram of the last level occurs
        totals: how often each context occurs
    """

    n: int
    vocab_size: int
    k: float
    levels: tuple[np.ndarray, ...]
    counts: np.ndarray
    totals: np.ndarray

    @property
    def cells(self) -> int:
        """V^n, the size of the whole table."""
        return int(self.vocab_size) ** self.n

    @property
    def filled(self) -> int:
        """Cells with a count above 0."""
        return len(self.counts)

    @property
    def empty_share(self) -> float:
        """The share of the cells whose count is 0."""
        return 1 - self.filled / self.cells

    @property
    def block_size(self) -> int:
        """The context length that `__call__` takes; a unigram takes one symbol and ignores it."""
        return max(1, self.n - 1)

    @property
    def device(self) -> torch.device:
        """The CPU, where counting happens."""
        return torch.device("cpu")

    def __call__(self, ids: Tensor) -> Tensor:
        """The log-probabilities (N, V) float64 after the contexts ``ids`` (N, T), T >= n - 1.

        They serve as logits, so `mlpkern.lm.sample` draws from an n-gram as from a model.
        """
        context = self._place(self._context(ids.numpy()))  # (N,)
        symbols = np.arange(self.vocab_size)
        key = context[:, None] * self.vocab_size + symbols  # (N, V)
        place = _find(self.levels[-1], key, (context >= 0)[:, None])
        p = self._smoothed(
            _counts_at(self.counts, place), _counts_at(self.totals, context)[:, None]
        )
        return torch.from_numpy(np.log(p))

    def row_losses(self, split: Split) -> np.ndarray:
        """-log p of every row (N,) in nats, float64; ``split`` needs a context of at least n - 1
        symbols."""
        return -np.log(self._smoothed(*self._row_counts(split)))

    def loss(self, split: Split) -> float:
        """The mean of `row_losses`: comparable with the loss of a model on the same split."""
        if not len(split):
            raise DataError("ngram: the split has no rows")
        return float(self.row_losses(split).mean())

    def _row_counts(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """count(context, y) and count(context) of every row."""
        context = self._context(split.inputs.cpu().numpy())
        grams = np.concatenate([context, split.targets.cpu().numpy()[:, None]], axis=1)
        return (
            _counts_at(self.counts, self._place(grams)),
            _counts_at(self.totals, self._place(context)),
        )

    def _smoothed(self, count: np.ndarray, total: np.ndarray) -> np.ndarray:
        return (count + self.k) / (total + self.k * self.vocab_size)

    def _context(self, ids: np.ndarray) -> np.ndarray:
        """The last n-1 columns of ``ids``."""
        width = ids.shape[1]
        if width < self.n - 1:
            raise ConfigError(f"{self.n}-gram: contexts need {self.n - 1} symbols, got {width}")
        return ids[:, width - (self.n - 1) :]

    def _place(self, ids: np.ndarray) -> np.ndarray:
        """The places of the j-grams ``ids`` (N, j) in level j: (N,), -1 where never seen."""
        place = np.zeros(len(ids), dtype=np.int64)
        for level, column in zip(self.levels, ids.T, strict=False):
            place = _find(level, place * self.vocab_size + column, place >= 0)
        return place


def ngram(dataset: Dataset, n: int, *, k: float | None = None) -> NGram:
    """The n-gram counts of the train split of ``dataset``, for n from 1 to 5.

    Args:
        k: above 0; None chooses it on the dev split, among 61 values from 0.0001 to 100.
    """
    check_kind("ngram", "dataset", dataset, Dataset, "as build_dataset makes it")
    if not 1 <= n <= MAX_N:
        raise ConfigError(f"n must be 1 to {MAX_N}, got {n}")
    if k is not None and not 0 < k < float("inf"):
        raise ConfigError(f"k must be a number above 0, got {k}")
    splits = dataset.splits_for(max(1, n - 1, dataset.block_size))
    counted = _count(splits["train"], n, len(dataset.vocab))
    return replace(counted, k=_best_k(counted, splits["dev"]) if k is None else k)


def ngram_name(n: int) -> str:
    """ "unigram", "bigram", "trigram", "4-gram", …"""
    return {1: "unigram", 2: "bigram", 3: "trigram"}.get(n, f"{n}-gram")


def _count(train: Split, n: int, vocab_size: int) -> NGram:
    """The counts of ``train``, with any k."""
    inputs, targets = train.inputs.cpu().numpy(), train.targets.cpu().numpy()
    width = inputs.shape[1]
    columns = [*inputs[:, width - (n - 1) :].T, targets]
    place = np.zeros(len(targets), dtype=np.int64)
    levels = []
    for column in columns:
        level, place = np.unique(place * vocab_size + column, return_inverse=True)
        levels.append(level)
    counts = np.bincount(place)
    contexts = len(levels[-2]) if n > 1 else 1
    totals = np.bincount(levels[-1] // vocab_size, weights=counts, minlength=contexts)
    return NGram(n, vocab_size, 1.0, tuple(levels), counts, totals)


def _best_k(counted: NGram, dev: Split) -> float:
    """The k of `K_GRID` with the lowest loss on ``dev``."""
    rows = counted._row_counts(dev)  # looked up once for all k
    losses = [-np.log(replace(counted, k=k)._smoothed(*rows)).mean() for k in K_GRID]
    return K_GRID[int(np.argmin(losses))]


def _find(level: np.ndarray, key: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The places of ``key`` in the sorted ``level``; -1 if absent or not ``valid``."""
    place = np.searchsorted(level, key).clip(max=len(level) - 1)
    return np.where(valid & (level[place] == key), place, -1)


def _counts_at(counts: np.ndarray, place: np.ndarray) -> np.ndarray:
    """``counts`` at ``place``, 0 where it is -1."""
    return np.where(place >= 0, counts[place], 0)
