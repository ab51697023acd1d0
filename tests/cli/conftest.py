"""One thread for all tests of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """As in tests/lm: the models are too small for a second thread."""
