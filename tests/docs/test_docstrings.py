"""The examples in the documentation of the workbench give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest
from support.lm_words import one_thread  # noqa: F401

MODULES = [
    "words.describe",
    "analysis.ngram",
    "plots",
    "plots.embedding",
    "saved.best",
    "analysis.compare",
    "plots.labels",
    "analysis.report",
    "words.symbols",
    "words.text",
    "analysis.verdict",
    "words.vocab",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(f"mlpkern.lm.{name}")
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert done.attempted > 0
    assert done.failed == 0
