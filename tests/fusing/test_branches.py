"""What counts as code of a forward while it is traced."""

from __future__ import annotations

import gc

import pytest

from mlpkern.tracing.branches import Branches


class InACircle:
    """Garbage that only the collector finds; its finalizer has a branch that goes one way."""

    finalized = 0

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        if isinstance(self, InACircle):
            InACircle.finalized += 1


def decide(value: int) -> int:
    return 1 if value else 2


@pytest.fixture
def eager_collector():
    """A collection after every few allocations."""
    before, thresholds = gc.isenabled(), gc.get_threshold()
    gc.enable()
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*thresholds)
    (gc.enable if before else gc.disable)()


def test_a_finalizer_that_the_collector_runs_is_not_code_of_the_forward(eager_collector):
    with Branches() as branches:
        before = InACircle.finalized
        for _ in range(50):
            InACircle()
        assert InACircle.finalized == before
    assert gc.isenabled()
    assert branches.open() == ""
    with Branches() as branches:
        decide(1)
    assert "of decide has a branch" in branches.open()


def test_a_collector_that_was_off_stays_off(eager_collector):
    gc.disable()
    with pytest.raises(KeyError), Branches():
        raise KeyError
    assert not gc.isenabled()
