"""The map of an embedding: components against numpy, labels that cover nothing, symbols."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.pictures import LATIN, MANY, draws, overlaps, texts_are_legible, vocab_of

from mlpkern import lm
from mlpkern.lm import plots
from mlpkern.lm.plots.embedding import label_extent
from mlpkern.lm.plots.labels import place_labels
from mlpkern.lm.plots.style import symbol_labels


def embedding(count, dimension=10, spread=1.0):
    """``count`` rows, half of them in a crowd of a tenth of the width."""
    rows = torch.randn(count, dimension)
    rows[: count // 2] *= 0.1
    return spread * rows


@pytest.mark.parametrize("shape", [(27, 10), (105, 24), (5, 3), (3, 30)])
def test_components_are_those_of_the_covariance(shape):
    rows = torch.randn(shape, dtype=torch.float64) * torch.linspace(3, 0.1, shape[1])
    coordinates, shares = plots.principal_components(rows)
    values, vectors = np.linalg.eigh(np.cov(rows.numpy().T))
    order = values.argsort()[::-1][:2]
    expected = (rows - rows.mean(0)).numpy() @ vectors[:, order]
    signs = np.sign((expected * coordinates.numpy()).sum(0))
    np.testing.assert_allclose(coordinates, expected * signs, atol=1e-9)
    np.testing.assert_allclose(shares, values[order] / values.sum())
    again, _ = plots.principal_components(rows[:, torch.randperm(shape[1])])
    torch.testing.assert_close(again, coordinates)  # the sign does not depend on the order


def test_two_dimensions_are_shown_as_they_are():
    rows = torch.randn(27, 2, dtype=torch.float64)
    coordinates, shares = plots.principal_components(rows)
    assert torch.equal(coordinates, rows)
    torch.testing.assert_close(shares, rows.var(0) / rows.var(0).sum())
    one, shares = plots.principal_components(rows[:, :1])
    assert torch.equal(one, torch.stack([rows[:, 0], torch.zeros(27)], 1))
    assert shares.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("symbols", "dimension"), [(LATIN, 2), (LATIN, 10), (MANY, 10), ("", 3), ("ab", 1)]
)
def test_every_symbol_has_a_label_and_none_covers_another(symbols, dimension):
    vocab = vocab_of(dict.fromkeys(symbols))
    figure = plots.embedding_plot(embedding(len(vocab), dimension), vocab)
    texts_are_legible(figure)
    (axes,) = figure.axes
    labels = list(axes.texts)
    assert [t.get_text() for t in labels] == list(vocab.symbols)
    assert overlaps([label_extent(t) for t in labels]) == []
    frame = axes.get_window_extent()
    for text in labels:
        box = label_extent(text)
        assert frame.x0 - 2 <= box.x0
        assert box.x1 <= frame.x1 + 2
        assert frame.y0 - 2 <= box.y0
        assert box.y1 <= frame.y1 + 2


def test_embedding_plot_has_the_size_of_its_figure():
    draws(plots.embedding_plot(embedding(27), vocab_of(LATIN)))


def test_labels_mark_vowels_and_are_tied_to_their_points():
    vocab = vocab_of(LATIN)
    weight = embedding(27, 2, spread=1e-3)
    figure = plots.embedding_plot(weight, vocab)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    faces = {t.get_text(): t.get_bbox_patch().get_facecolor() for t in axes.texts}
    marked = {symbol for symbol, face in faces.items() if face == faces["a"]}
    assert marked == set("aeiou")
    assert len(set(faces.values())) == 3
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points, weight, rtol=1e-6)
    # a label away from its point has a line that begins there
    pixels = axes.transData.transform(points)
    centers = np.array(
        [[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in map(label_extent, axes.texts)]
    )
    away = np.abs(centers - pixels).max(1) > 3
    assert 3 < away.sum() < 20
    starts = np.array([line.get_xydata()[0] for line in axes.lines])
    np.testing.assert_allclose(starts, points[away], rtol=1e-6)


def test_axes_name_their_share_of_the_variance():
    rows = torch.zeros(4, 3)
    rows[:, 0] = torch.tensor([3.0, -3, 3, -3])
    rows[:, 2] = torch.tensor([1.0, 1, -1, -1])
    (axes,) = plots.embedding_plot(rows, vocab_of("abc")).axes
    assert axes.get_xlabel() == "first principal component (90 % of the variance)"
    assert axes.get_ylabel() == "second principal component (10 % of the variance)"
    (axes,) = plots.embedding_plot(rows[:, ::2], vocab_of("abc")).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("dimension 1", "dimension 2")


def test_a_word_model_has_words_and_no_vowels():
    vocab = lm.Vocab(("<s>", "<unk>", "a", "the"), level="word")
    figure = plots.embedding_plot(embedding(4), vocab)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["word", "boundary"]


def test_of_many_symbols_the_most_frequent_are_named():
    symbols = [chr(0x100 + i) for i in range(199)]
    counts = torch.arange(200)
    figure = plots.embedding_plot(embedding(200), vocab_of(symbols), counts=counts)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.texts] == symbols[49:]
    assert len(axes.collections[0].get_offsets()) == 200
    assert overlaps([label_extent(t) for t in axes.texts]) == []


@pytest.mark.parametrize("count", [2, 30, 120])
def test_labels_of_one_place_are_spread_around_it(count):
    sizes = np.full((count, 2), 20.0)
    centers = place_labels(np.zeros((count, 2)), sizes, (-400, -400, 400, 400))
    apart = np.abs(centers[:, None] - centers[None]).max(-1) + 1e9 * np.eye(count)
    assert apart.min() >= 20
    assert np.abs(centers).max() <= 390


# symbols


def test_symbols_that_no_font_has_are_code_points():
    unknown = "\U000f0000"
    labels, families = symbol_labels(["a", " ", unknown, "$x$", "e\u0301"])
    assert labels == ["a", "␣", "U+F0000", r"\$x\$", "é"]
    assert families[0] == "DejaVu Sans"
