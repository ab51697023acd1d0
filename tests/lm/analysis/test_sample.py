"""Sampling: the model's own distribution, seeds, prefix, temperature, length, errors."""

from __future__ import annotations

import importlib
import math
from collections import Counter

import pytest
import torch
from support.lm.words import make_words

from mlpkern.lm.analysis.sample import sample, sample_new, share_seen
from mlpkern.lm.errors import ConfigError, DataError
from mlpkern.lm.model.config import TrainConfig
from mlpkern.lm.model.mlp import MLPLanguageModel
from mlpkern.lm.training.engines import StockEngine
from mlpkern.lm.training.trainer import Trainer
from mlpkern.lm.words.data import build_dataset

DATASET = build_dataset(make_words(alphabet="abc"), block_size=2)
VOCAB = DATASET.vocab


@pytest.fixture(scope="module")
def model():
    config = TrainConfig(block_size=2, embedding_dim=4, hidden=(16,), steps=500, lr=((0, 0.1),))
    trainer = Trainer.start(config, DATASET, StockEngine())
    trainer.train()
    return trainer.state.model


def probability(model, word, ended=True, temperature=1.0):
    """The probability of ``word`` by the chain rule, one context at a time."""
    total = 1.0
    ids = VOCAB.encode(word) + ([0] if ended else [])
    context = [0] * model.block_size
    for i in ids:
        logits = model(torch.tensor([context]))[0].double() / temperature
        total *= logits.softmax(-1)[i].item()
        context = [*context[1:], i]
    return total


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_those_of_the_model(model, temperature):
    count = 20_000
    seen = Counter(sample(model, VOCAB, count, seed=1, temperature=temperature))
    for word in ["", "a", "b", "c", "ab", "bc", "ca", "abc"]:
        p = probability(model, word, temperature=temperature)
        error = math.sqrt(p * (1 - p) / count)
        assert abs(seen[word] / count - p) < 5 * error + 1e-4


def test_words_that_are_cut_follow_the_model_too(model):
    count = 20_000
    seen = Counter(sample(model, VOCAB, count, seed=2, max_length=2, prefix="a"))
    p = probability(model, "ab", ended=False) / probability(model, "a", ended=False)
    assert abs(seen["ab"] / count - p) < 5 * math.sqrt(p * (1 - p) / count)
    assert max(map(len, seen)) == 2


def test_seed_decides(model):
    first = sample(model, VOCAB, 50, seed=3)
    before = torch.get_rng_state()
    assert sample(model, VOCAB, 50, seed=3) == first
    assert sample(model, VOCAB, 50, seed=4) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_prefix_starts_every_word_even_beyond_the_context(model):
    words = sample(model, VOCAB, 100, prefix="cabac")
    assert all(word.startswith("cabac") for word in words)
    assert len(set(words)) > 1


def test_low_temperature_takes_the_likeliest_symbol(model):
    words = sample(model, VOCAB, 10, temperature=1e-300, max_length=12)
    context, word = [0, 0], ""
    while len(word) < 12:
        best = int(model(torch.tensor([context]))[0].argmax())
        if best == 0:
            break
        word += VOCAB.symbols[best]
        context = [context[1], best]
    assert set(words) == {word}


@pytest.mark.parametrize("k", [1, 2, 3, 4, 100])
def test_top_k_draws_from_the_likeliest_alone(model, k):
    """Frequencies of the first symbol are those of the model, cut to k symbols and scaled."""
    p = model(torch.zeros(1, 2, dtype=torch.int64))[0].double().softmax(-1)
    kept = p.topk(min(k, 4))
    expected = torch.zeros(4, dtype=torch.float64).index_put(
        (kept.indices,), kept.values / kept.values.sum()
    )
    count = 5_000
    seen = Counter(sample(model, VOCAB, count, seed=5, top_k=k, max_length=1))
    for symbol, share in zip(["", "a", "b", "c"], expected.tolist(), strict=True):
        error = math.sqrt(share * (1 - share) / count)
        assert abs(seen[symbol] / count - share) < 5 * error + 1e-9


def test_share_of_samples_seen_in_training():
    assert share_seen(["ab", "b", "ab", "c"], ["ab", "d"]) == 0.5
    assert share_seen([], ["ab"]) == 0


def test_new_words_are_the_samples_that_are_not_known(model):
    known = {"a", "ab", "abc", "b", "c"}
    drawn = sample(model, VOCAB, 60, seed=3)
    kept = [word for word in drawn if word and word not in known]
    found = sample_new(model, VOCAB, 60, known, seed=3)
    assert 0 < len(kept) < 60 == len(found.words)
    assert found.words[: len(kept)] == kept
    assert found.drawn > 60
    assert not known & set(found.words)
    assert "" not in found.words
    assert sample_new(model, VOCAB, 60, known, seed=3) == found
    assert sample_new(model, VOCAB, len(kept), known, seed=3).drawn <= found.drawn
    assert sample_new(model, VOCAB, 0, known).words == []


def test_new_words_are_given_up_after_a_hundred_tries_for_each(model):
    likeliest = sample(model, VOCAB, 1, top_k=1)
    found = sample_new(model, VOCAB, 3, likeliest, top_k=1)
    assert (found.words, found.drawn) == ([], 300)
    some = sample_new(model, VOCAB, 3, ["a", "b", "c", ""], max_length=1)
    assert (some.words, some.drawn) == ([], 300)


def test_more_words_than_advance_together(model, monkeypatch):
    monkeypatch.setattr(importlib.import_module("mlpkern.lm.analysis.sample"), "MAX_TOGETHER", 7)
    words = sample(model, VOCAB, 30, seed=1)
    assert len(words) == 30
    assert sample(model, VOCAB, 7, seed=1) == words[:7]


def test_count_zero_and_prefix_at_the_limit(model):
    assert sample(model, VOCAB, 0) == []
    assert sample(model, VOCAB, 2, prefix="abc", max_length=3) == ["abc", "abc"]


def test_a_model_that_never_ends_is_cut():
    endless = MLPLanguageModel(4, 2, 3, 5, kernels="stock")
    with torch.no_grad():
        endless.output.bias[0] = -1e9
    assert {len(word) for word in sample(endless, VOCAB, 20, max_length=30)} == {30}


def test_errors_name_the_argument(model):
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="temperature must be a number above 0"):
            sample(model, VOCAB, 1, temperature=temperature)
    with pytest.raises(ConfigError, match="top_k must be at least 1, got 0"):
        sample(model, VOCAB, 1, top_k=0)
    with pytest.raises(DataError, match=r"'aX': symbol 'X' at position 1 .* knows: abc"):
        sample(model, VOCAB, 1, prefix="aX")
    with pytest.raises(DataError, match=r"symbol '\.'"):
        sample(model, VOCAB, 1, prefix=".a")
    with pytest.raises(ConfigError, match="count must be at least 0, got -1"):
        sample(model, VOCAB, -1)
    with pytest.raises(ConfigError, match="max_length must be at least 3 here, got 2"):
        sample(model, VOCAB, 1, prefix="abc", max_length=2)
    with pytest.raises(ConfigError, match="count must be at least 0, got -1"):
        sample_new(model, VOCAB, -1, [])
