"""Samples words from a model, symbol by symbol."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from mlpkern.lm.arguments import check_kind, described
from mlpkern.lm.errors import ConfigError
from mlpkern.lm.memory import check_fits
from mlpkern.lm.model.setting import check_seed
from mlpkern.lm.words.data import Vocab

MAX_TOGETHER = 16_384  # words in one batch
MAX_LOGITS = 1 << 26  # of a batch: half a GB of float64
BYTES_OF_WORD = 50  # of a Python string, at least
FEWEST, MOST_TRIES = 100, 100  # words that `sample_new` draws at once, and for each one asked for


class NextSymbol(Protocol):
    """A model to sample from, such as `MLPLanguageModel` or `NGram`."""

    @property
    def block_size(self) -> int:
        """T, symbols of context."""

    @property
    def device(self) -> torch.device:
        """The device of the contexts."""

    def __call__(self, ids: Tensor, /) -> Any:
        """The logits (N, V) after the contexts ``ids`` (N, T)."""


def sample(
    model: NextSymbol,
    vocab: Vocab,
    count: int,
    *,
    seed: int = 0,
    prefix: str = "",
    temperature: float = 1.0,
    top_k: int | None = None,
    max_length: int = 100,
) -> list[str]:
    """``count`` words sampled from the model, in batches; at level "word" sequences, with spaces
    between the tokens.

    Args:
        seed: the same seed, model and arguments give the same words.
        prefix: the beginning of every word, at level "word" its first tokens; DataError for a
            symbol or token that the model does not know.
        temperature: > 0; divides the logits (below 1: more likely words, above 1: less likely).
        top_k: at least 1; every symbol is drawn from the k most likely ones. None: from all.
        max_length: a word is cut after so many symbols, including the prefix.

    A word ends when the model draws the boundary; it may be empty.
    """
    _check_count(count)
    draw = _drawing(model, vocab, seed, prefix, temperature, top_k, max_length)
    return draw(count)


@dataclass(frozen=True)
class NewWords:
    """``words``: those that are new; ``drawn``: how many words were drawn for them."""

    words: list[str]
    drawn: int


def sample_new(
    model: NextSymbol,
    vocab: Vocab,
    count: int,
    known: Collection[str],
    *,
    seed: int = 0,
    prefix: str = "",
    temperature: float = 1.0,
    top_k: int | None = None,
    max_length: int = 100,
) -> NewWords:
    """``count`` words as `sample` draws them, without empty ones and those in ``known``, such as
    the training words: a word that is left out is drawn again.

    The first are those of `sample` with the same arguments. After 100 words for each of ``count``
    it gives up, and there are fewer words than asked for.
    """
    _check_count(count)
    draw = _drawing(model, vocab, seed, prefix, temperature, top_k, max_length)
    left_out = {"", *known}
    words: list[str] = []
    drawn, most = 0, MOST_TRIES * count
    while len(words) < count and drawn < most:
        for word in draw(max(count, FEWEST) if drawn else count):
            if len(words) == count or drawn == most:
                break
            drawn += 1
            if word not in left_out:
                words.append(word)
    return NewWords(words, drawn)


def _check_count(count: int) -> None:
    if count < 0:
        raise ConfigError(f"count must be at least 0, got {count}")
    check_fits(f"count {count}: the list of words", BYTES_OF_WORD * count)


def _drawing(
    model: NextSymbol,
    vocab: Vocab,
    seed: int,
    prefix: str,
    temperature: float,
    top_k: int | None,
    max_length: int,
) -> Callable[[int], list[str]]:
    """What draws so many more words; ConfigError for arguments that `sample` does not take."""
    if not (callable(model) and hasattr(model, "block_size")):
        raise TypeError(
            f"sample: model must be a model, as load_model returns it, got {described(model)}"
        )
    check_kind("sample", "vocab", vocab, Vocab, "as in dataset.vocab")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be a number above 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k must be at least 1, got {top_k}")
    start = vocab.encode(prefix)
    if max_length < 1 or max_length < len(start):
        low = max(1, len(start))
        raise ConfigError(f"max_length must be at least {low} here, got {max_length}")
    check_seed("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    one = partial(_draw, generator=generator, temperature=temperature, top_k=top_k)
    most = max(1, min(MAX_TOGETHER, MAX_LOGITS // len(vocab)))

    def draw(count: int) -> list[str]:
        words = []
        for first in range(0, count, most):
            words += _advance(model, start, min(most, count - first), one, max_length)
        return [vocab.decode(ids) for ids in words]

    return draw


@torch.no_grad()
def _advance(
    model: NextSymbol,
    start: list[int],
    count: int,
    draw: Callable[[Tensor], Tensor],
    max_length: int,
) -> list[list[int]]:
    """The ids of ``count`` words that begin with ``start``; a finished word leaves the batch."""
    device = model.device
    block = model.block_size
    words = [list(start) for _ in range(count)]
    active = torch.arange(count, device="cpu")
    padded = [0] * block + start
    context = torch.tensor(padded[len(padded) - block :], dtype=torch.int64, device="cpu")
    context = context.repeat(count, 1)  # (active, T)
    for _ in range(max_length - len(start)):
        if not len(active):
            break
        drawn = draw(model(context.to(device)))  # (active,)
        going = drawn != 0
        active, drawn = active[going], drawn[going]
        for word, symbol in zip(active.tolist(), drawn.tolist(), strict=True):
            words[word].append(symbol)
        context = torch.cat([context[going][:, 1:], drawn[:, None]], dim=1)
    return words


def share_seen(words: Sequence[str], training: Iterable[str]) -> float:
    """The share of ``words`` that occur in ``training``, 0 to 1: how much a model memorised."""
    known = set(training)
    return sum(word in known for word in words) / max(1, len(words))


def _draw(
    logits: Tensor, generator: torch.Generator, temperature: float, top_k: int | None
) -> Tensor:
    """An id for each row of ``logits`` (N, V), drawn on the CPU: the same for all devices."""
    scaled = logits.cpu().double()
    # minus the maximum first: a tiny temperature then gives -inf, never inf - inf
    scaled = (scaled - scaled.amax(-1, keepdim=True)) / temperature
    if top_k is None or top_k >= scaled.shape[-1]:
        return torch.multinomial(scaled.softmax(-1), 1, generator=generator).squeeze(1)
    best, ids = scaled.topk(top_k, -1)  # (N, k)
    place = torch.multinomial(best.softmax(-1), 1, generator=generator)  # (N, 1)
    return ids.gather(-1, place).squeeze(1)
