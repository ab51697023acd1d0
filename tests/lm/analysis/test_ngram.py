"""The counting baseline: counts and losses by hand, k, a table by plain loops, sampling, errors."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from support.lm.words import make_words, makemore_names

from mlpkern import lm
from mlpkern.lm.errors import ConfigError, DataError
from mlpkern.lm.words.data import Split, Vocab, windows

DATASET = lm.build_dataset(make_words(400), block_size=3)
SIZES = range(1, 6)


def dataset_of(train, dev, block_size=1):
    """A dataset whose splits are chosen by hand; dev serves as test too."""
    vocab = Vocab.from_words([*train, *dev])
    words = {"train": train, "dev": dev, "test": dev}
    splits = {name: windows(part, vocab, block_size) for name, part in words.items()}
    return lm.Dataset(vocab, splits, words, "")


def grams(words, n):
    """Every (context, next) of ``words`` by slicing padded strings."""
    for word in words:
        padded = "." * (n - 1) + word + "."
        for i in range(len(padded) - n + 1):
            yield padded[i : i + n - 1], padded[i + n - 1]


def loss_by_loops(train, dev, n, k, vocab_size):
    counts = Counter(grams(train, n))
    totals = Counter(context for context, _ in grams(train, n))
    p = [(counts[c, y] + k) / (totals[c] + k * vocab_size) for c, y in grams(dev, n)]
    return -sum(map(math.log, p)) / len(p)


# the loss


def test_a_bigram_by_hand():
    # train, 5 rows: . a | a . | . a | a b | b .      dev: . b | b .      V = 3
    bigram = lm.ngram(dataset_of(["a", "ab"], ["b"]), 2, k=1.0)
    assert (bigram.cells, bigram.filled) == (9, 4)
    assert bigram.empty_share == pytest.approx(5 / 9)
    dev = windows(["b"], Vocab((".", "a", "b")), 1)
    # p(b | .) = (0 + 1) / (2 + 3), p(. | b) = (1 + 1) / (1 + 3)
    np.testing.assert_allclose(bigram.row_losses(dev), [math.log(5), math.log(2)])
    assert bigram.loss(dev) == pytest.approx(math.log(10) / 2)


@pytest.mark.parametrize("n", SIZES)
def test_loss_is_that_of_counting_with_loops(n):
    model = lm.ngram(DATASET, n)
    splits = DATASET.splits_for(max(1, n - 1))
    train = DATASET.words["train"]
    for name, split in splits.items():
        expected = loss_by_loops(train, DATASET.words[name], n, model.k, len(DATASET.vocab))
        assert model.loss(split) == pytest.approx(expected, rel=1e-12)
    assert model.filled == len(set(grams(train, n)))
    assert model.cells == len(DATASET.vocab) ** n


def test_the_context_may_be_longer_than_needed():
    bigram = lm.ngram(DATASET, 2)
    exact = bigram.row_losses(windows(DATASET.words["dev"], DATASET.vocab, 1))
    np.testing.assert_array_equal(bigram.row_losses(DATASET.splits["dev"]), exact)


def test_bigram_of_the_makemore_names():
    dataset = lm.build_dataset(lm.read_words(makemore_names()), block_size=3)
    assert lm.ngram(dataset, 2).loss(dataset.splits["dev"]) == pytest.approx(2.45, abs=0.01)


def test_a_vocabulary_whose_table_exceeds_int64():
    words = [chr(0x4E00 + i) + chr(0x4E00 + 7 * i % 20_000) for i in range(20_000)]
    dataset = lm.build_dataset(words, block_size=4)
    model = lm.ngram(dataset, 5, k=0.5)
    assert model.cells == len(dataset.vocab) ** 5 > 2**63
    assert model.filled == 3 * len(dataset.words["train"])
    sizes = (1 + 0.5) / (1 + 0.5 * len(dataset.vocab))
    last = windows(dataset.words["train"][:1], dataset.vocab, 4)
    assert model.row_losses(last)[2] == pytest.approx(-math.log(sizes))


# probabilities


@pytest.mark.parametrize("n", SIZES)
def test_every_context_has_probabilities_that_sum_to_1(n):
    model = lm.ngram(DATASET, n)
    seen = DATASET.splits_for(model.block_size)["dev"].inputs[:200]
    unseen = torch.full((1, model.block_size), 5)
    for ids in (seen, unseen):
        p = model(ids).exp()
        assert p.shape == (len(ids), len(DATASET.vocab))
        torch.testing.assert_close(p.sum(1), torch.ones(len(ids), dtype=torch.float64))
        assert (p > 0).all()


@pytest.mark.parametrize("n", SIZES)
def test_row_losses_are_read_off_the_probabilities(n):
    model = lm.ngram(DATASET, n)
    dev = DATASET.splits_for(model.block_size)["dev"]
    from_table = -model(dev.inputs).gather(1, dev.targets.long()[:, None])[:, 0]
    np.testing.assert_allclose(model.row_losses(dev), from_table.numpy(), rtol=1e-12)


def test_an_unknown_context_is_uniform():
    model = lm.ngram(dataset_of(["ab"], ["ba"], block_size=2), 3)
    never = torch.tensor([[2, 2]])
    torch.testing.assert_close(model(never), torch.full((1, 3), -math.log(3)).double())


# k


def test_k_has_the_lowest_dev_loss():
    dev = DATASET.splits["dev"]
    for n in (2, 4):
        chosen = lm.ngram(DATASET, n)
        for factor in (0.5, 0.8, 1.25, 2):
            other = lm.ngram(DATASET, n, k=chosen.k * factor)
            assert chosen.loss(dev) <= other.loss(dev)


def test_a_large_k_is_uniform_and_a_small_one_has_the_lowest_train_loss():
    train = DATASET.splits["train"]
    assert lm.ngram(DATASET, 2, k=1e12).loss(train) == pytest.approx(math.log(9), abs=1e-6)
    losses = [lm.ngram(DATASET, 2, k=k).loss(train) for k in (1e-6, 1e-2, 1.0, 100.0)]
    assert losses == sorted(losses)


# sampling


def test_samples_follow_the_counts_and_the_seed():
    bigram = lm.ngram(DATASET, 2)
    words = lm.sample(bigram, DATASET.vocab, 4000, seed=3)
    assert words == lm.sample(bigram, DATASET.vocab, 4000, seed=3)
    assert words != lm.sample(bigram, DATASET.vocab, 4000, seed=4)
    first = bigram(torch.zeros(1, 1, dtype=torch.int64)).exp()[0]
    starts = Counter(word[:1] for word in words)
    for i, symbol in enumerate(DATASET.vocab.symbols[1:], 1):
        expected = first[i].item()
        slack = 4 * (expected * (1 - expected) / 4000) ** 0.5
        assert starts[symbol] / 4000 == pytest.approx(expected, abs=slack)
    assert all(w.startswith("ab") for w in lm.sample(bigram, DATASET.vocab, 20, prefix="ab"))


def test_a_unigram_samples_too():
    words = lm.sample(lm.ngram(DATASET, 1), DATASET.vocab, 50)
    assert set("".join(words)) <= set(DATASET.vocab.symbols[1:])


# errors


@pytest.mark.parametrize("n", [0, 6, -1])
def test_n_out_of_range(n):
    with pytest.raises(ConfigError, match=f"n must be 1 to 5, got {n}"):
        lm.ngram(DATASET, n)


@pytest.mark.parametrize("k", [0.0, -1.0, math.inf, math.nan])
def test_k_out_of_range(k):
    with pytest.raises(ConfigError, match="k must be a number above 0"):
        lm.ngram(DATASET, 2, k=k)


def test_contexts_too_short_and_no_rows():
    model = lm.ngram(DATASET, 5)
    with pytest.raises(ConfigError, match="5-gram: contexts need 4 symbols, got 3"):
        model.loss(DATASET.splits["dev"])
    empty = Split(torch.zeros(0, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.uint8))
    with pytest.raises(DataError, match="no rows"):
        model.loss(empty)
