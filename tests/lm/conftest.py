"""One thread for all tests of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """These models are so small that a second thread only waits, or takes a core from others."""
