"""The backends of a GPU as fixtures; at the end of a test they raise the error of a bad id."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mlpkern


def named(name: str) -> Iterator[str]:
    status = mlpkern.backends()[name]
    if not status.available:
        pytest.skip(f"backend {name}: {status.reason}")
    with mlpkern.use_backend(name):
        yield name
    mlpkern.check_errors()


@pytest.fixture(params=["cuda", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tests run on both backends of a GPU."""
    yield from named(request.param)


@pytest.fixture
def cuda_backend() -> Iterator[str]:
    """The tests run on the backend cuda."""
    yield from named("cuda")
