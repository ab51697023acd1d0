"""What tests of pictures share: alphabets, the size of a PNG, which texts cover each other."""

from __future__ import annotations

import struct
from itertools import combinations

import pytest

from mlpkern import lm
from mlpkern.lm import plots

pytest.importorskip("matplotlib", reason="the pictures need matplotlib")

LATIN = "abcdefghijklmnopqrstuvwxyz"
MANY = (
    LATIN + "àâäçéèêëîïôöùûüßñóåø" + "αβγδεζηθικλμνξοπρστυφχψω" + "абвгдежзийклмнопрстуфхцчшщъыьэюя"
)


def vocab_of(symbols):
    return lm.Vocab((".", *symbols))


def png_size(content):
    """(width, height) in the header of a PNG file."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[12:16] == b"IHDR"
    return struct.unpack(">II", content[16:24])


def draws(figure):
    """Draws ``figure``; its PNG must have the size that was asked for and more than one colour."""
    content = plots.png(figure)
    width, height = figure.get_size_inches() * figure.dpi
    assert abs(png_size(content)[0] - width) <= 1
    assert abs(png_size(content)[1] - height) <= 1
    assert len(content) > 5_000
    return content


def overlaps(boxes):
    """Pairs of boxes (x0, y0, x1, y1) that cover each other by more than half a pixel."""
    found = []
    for (i, a), (j, b) in combinations(enumerate(boxes), 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > 0.5 and down > 0.5:
            found.append((i, j))
    return found


def texts_of(figure):
    """Every text that a drawn figure shows: titles, axis and tick labels, legends, labels."""
    import matplotlib.text

    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = axis._update_ticks()  # the ticks within the limits
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if tick not in drawn:
                    hidden |= {tick.label1, tick.label2}
    texts = figure.findobj(matplotlib.text.Text)
    return [t for t in texts if t.get_visible() and t.get_text().strip() and t not in hidden]


def texts_are_legible(figure, smallest=8):
    """Every text lies inside the picture, is large enough, and covers no other."""
    figure.draw_without_rendering()
    texts = texts_of(figure)
    boxes = [t.get_window_extent() for t in texts]
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in zip(texts, boxes, strict=True):
        assert text.get_fontsize() >= smallest, text
        assert -1 <= box.x0 < box.x1 <= width + 1, text
        assert -1 <= box.y0 < box.y1 <= height + 1, text
    pairs = [(texts[i].get_text(), texts[j].get_text()) for i, j in overlaps(boxes)]
    assert pairs == []
