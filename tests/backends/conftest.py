"""The registry of backends as at the start of a process."""

from __future__ import annotations

import pytest

from mlpkern import registry


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty registry, and no backend named by the environment."""
    for name in ("_chosen", "_status"):
        monkeypatch.setattr(registry, name, {})
    monkeypatch.delenv("MLPKERN_BACKEND", raising=False)
