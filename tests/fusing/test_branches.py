"""What counts as code of a forward while it is traced."""

from __future__ import annotations

import gc
from itertools import repeat

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
def collector():
    """The garbage collector, on and with nothing to do."""
    before = gc.isenabled()
    gc.enable()
    gc.collect()
    yield
    (gc.enable if before else gc.disable)()


def test_a_finalizer_that_the_collector_runs_is_not_code_of_the_forward(collector):
    before = InACircle.finalized
    InACircle()
    with Branches() as branches:
        held = list(map(list, repeat((), 10 * gc.get_threshold()[0])))  # enough for a collection
        assert InACircle.finalized == before
    assert branches.open() == ""
    assert gc.isenabled()
    del held


def test_a_branch_that_goes_one_way_is_open():
    with Branches() as branches:
        decide(1)
    assert "of decide has a branch" in branches.open()
    with branches:
        decide(0)
    assert branches.open() == ""


def test_a_collector_that_was_off_stays_off(collector):
    gc.disable()
    with pytest.raises(KeyError), Branches():
        raise KeyError
    assert not gc.isenabled()
