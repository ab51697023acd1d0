"""The registry of the backends as at the start of a process."""

from __future__ import annotations

import pytest

from mlpkern import registry


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry without what earlier calls left in it, and no backend named."""
    for name in ("_chosen", "_status"):
        monkeypatch.setattr(registry, name, {})
    monkeypatch.delenv("MLPKERN_BACKEND", raising=False)
