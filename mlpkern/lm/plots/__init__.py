"""Pictures of a run: each function returns a matplotlib figure, `png` gives the bytes of a file.

All have one style (style.py): the colours of Okabe and Ito, which are distinct to colour-blind
readers too, and lines and marks that also differ in form. matplotlib is imported when a figure is
made; without it, MissingPackageError says what to install.

>>> from mlpkern import lm
>>> model = lm.MLPLanguageModel(27, 3, 10, 200)
>>> vocab = lm.Vocab.from_words(["abcdefghijklmnopqrstuvwxyz"])
>>> figure = lm.plots.embedding_plot(model.embedding.weight, vocab)
>>> lm.plots.png(figure)[:4]
b'\\x89PNG'
"""

from __future__ import annotations

from mlpkern.lm.plots.caption import run_caption
from mlpkern.lm.plots.confusion import confusion_plot, confusion_shares
from mlpkern.lm.plots.curves import comparison_plot, loss_plot, lr_plot, report_plot
from mlpkern.lm.plots.embedding import embedding_plot, principal_components
from mlpkern.lm.plots.finder import finder_plot
from mlpkern.lm.plots.mistakes import ConfusedPair, confused_pairs, pairs_plot
from mlpkern.lm.plots.style import png, require_matplotlib

__all__ = [
    "ConfusedPair",
    "comparison_plot",
    "confused_pairs",
    "confusion_plot",
    "confusion_shares",
    "embedding_plot",
    "finder_plot",
    "loss_plot",
    "lr_plot",
    "pairs_plot",
    "png",
    "principal_components",
    "report_plot",
    "require_matplotlib",
    "run_caption",
]
