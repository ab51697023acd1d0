"""What is predicted for each target: the matrix, and the mistakes of a large vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.lm.words import make_words
from support.pictures import LATIN, MANY, draws, texts_are_legible, vocab_of

from mlpkern import lm
from mlpkern.lm import plots
from mlpkern.lm.errors import DataError
from mlpkern.lm.words.data import Split


def small_model(words=None, **sizes):
    dataset = lm.build_dataset(words or make_words(), block_size=3)
    model = lm.MLPLanguageModel(len(dataset.vocab), 3, 4, 16)
    return dataset, model


# the matrix


def test_confusion_shares_by_counting():
    dataset, model = small_model()
    dev = dataset.splits["dev"]
    shares = plots.confusion_shares(model, dev)
    predicted = model(dev.inputs).argmax(1)
    for target in range(len(dataset.vocab)):
        of_target = predicted[dev.targets == target]
        for symbol in range(len(dataset.vocab)):
            expected = (of_target == symbol).double().mean()
            torch.testing.assert_close(shares[target, symbol], expected)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares), dtype=torch.float64))


def test_a_target_that_never_occurs_is_left_out():
    dataset, model = small_model()
    dev = dataset.splits["dev"]
    kept = dev.targets != 2
    shares = plots.confusion_shares(model, Split(dev.inputs[kept], dev.targets[kept]))
    assert shares[2].isnan().all()
    assert not shares[[0, 1, 3]].isnan().any()
    (axes, _) = plots.confusion_plot(shares, dataset.vocab).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == list(".acdefgh")
    assert [t.get_text() for t in axes.get_xticklabels()] == list(".abcdefgh")
    with pytest.raises(DataError, match="no target occurs"):
        plots.confusion_plot(torch.full((9, 9), torch.nan), dataset.vocab)


@pytest.mark.parametrize("symbols", [LATIN, MANY])
def test_confusion_labels_are_legible(symbols):
    vocab = vocab_of(dict.fromkeys(symbols))
    shares = torch.rand(len(vocab), len(vocab), dtype=torch.float64).softmax(1)
    figure = plots.confusion_plot(shares, vocab)
    figure.draw_without_rendering()  # as `png` does
    texts_are_legible(figure)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), shares)


def test_confusion_of_many_symbols_has_a_column_for_the_rest(monkeypatch):
    monkeypatch.setattr("mlpkern.lm.plots.confusion.MAX_SYMBOLS", 20)  # a small picture
    words = [f"word{i}" for i in range(30)]
    vocab = vocab_of(words)
    shares = torch.rand(31, 31, dtype=torch.float64)
    shares /= shares.sum(1, keepdim=True)
    figure = plots.confusion_plot(shares, vocab, counts=torch.arange(31))
    axes = figure.axes[0]
    matrix = axes.images[0].get_array()
    assert matrix.shape == (20, 21)
    np.testing.assert_allclose(matrix.sum(1), 1)
    np.testing.assert_array_equal(matrix[:, :-1], shares[11:, 11:])
    assert [t.get_text() for t in axes.get_xticklabels()] == [*words[10:], "other"]
    draws(figure)
    texts_are_legible(figure)


# the mistakes


def test_confused_pairs_are_the_cells_beside_the_diagonal_by_count():
    dataset, model = small_model()
    dev, shares = dataset.splits["dev"], plots.confusion_shares(model, dataset.splits["dev"])
    rows = torch.bincount(dev.targets.long(), minlength=len(dataset.vocab))
    counts = (shares.nan_to_num() * rows[:, None]).round().fill_diagonal_(0)
    found = plots.confused_pairs(model, dev, most=10**6)
    assert len(found) == (counts > 0).sum() > 10
    for pair in found:
        assert pair.target != pair.predicted
        assert pair.count == counts[pair.target, pair.predicted]
        assert pair.share == pytest.approx(shares[pair.target, pair.predicted].item())
    numbers = [pair.count for pair in found]
    assert numbers == sorted(numbers, reverse=True)
    assert plots.confused_pairs(model, dev, most=3) == found[:3]


def test_mistakes_among_thousands_of_words_are_a_list_of_bars():
    words = ["a", "$5", "_", "unpronounceable-" * 8, *(f"word{i}" for i in range(2995))]
    vocab = lm.Vocab(("<s>", "<unk>", *words), level="word")
    model = lm.MLPLanguageModel(len(vocab), 2, 3, 8)
    ids = torch.randint(5, (400, 3), dtype=torch.int16)
    with torch.no_grad():
        model.output.bias[:6] += 100  # so that a few pairs are frequent
    pairs = plots.confused_pairs(model, Split(ids[:, :2], ids[:, 2]))
    figure = plots.pairs_plot(pairs, vocab, title="words: V=3000")
    draws(figure)
    texts_are_legible(figure)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [pair.count for pair in pairs]
    first = f"{pairs[0].count:,}, {100 * pairs[0].share:.0f} % of {pairs[0].rows:,}"
    assert axes.texts[0].get_text() == first
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert all(" → " in name and len(name) < 60 for name in named)
    assert len(named) == len(pairs) == len(axes.patches)
    with pytest.raises(DataError, match="no mistakes"):
        plots.pairs_plot([], vocab)
