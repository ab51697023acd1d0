"""What ``fuse`` learns from bytecode, which differs between versions of Python."""

from __future__ import annotations

import sys

import pytest

from mlpkern.fusing.bytecode import uses
from mlpkern.tracing.branches import Branches


class Methods:
    def calls(self, x):
        return [self.net(v) for v in self.out(x)]

    def takes(self, x):
        return self.net[:-1](x)

    def looks(self):
        return self.net.weight, self.net.parameters()

    def reaches(self, x):
        return self.block.net(x)

    def keeps(self, x):
        self.last = x

    def passes_on(self, x):
        return max(x, self)

    def passes_first(self, x):
        return max(self, x)

    def renames(self, x):
        me = self
        return me.net(x)

    def children_of(self, x):
        return next(self.net.children())(x)

    def looks_up(self, x):
        return [getattr(self.net, "0")(x) for _ in x]


@pytest.mark.parametrize(
    ("method", "used", "generic"),
    [
        ("calls", {("net", True, True), ("out", True, True)}, ""),
        ("takes", {("net", True, False)}, ""),
        ("looks", {("weight", False, False), ("parameters", False, True)}, ""),
        ("reaches", {("block", True, False), ("net", False, True)}, ""),
        ("keeps", set(), ""),
        ("passes_on", set(), "by passing itself on"),
        ("passes_first", set(), "by passing itself on"),
        ("renames", {("net", False, True)}, "by passing itself on"),
        ("children_of", {("net", True, False), ("children", False, True)}, "by children"),
        ("looks_up", {("net", True, False)}, "by getattr"),
    ],
)
def test_uses_of_attributes(method, used, generic):
    found = uses(getattr(Methods, method).__code__)
    assert {(use.name, use.own, use.called) for use in found.attributes} == used
    assert found.generic == generic


def statement(x):
    if x:
        x = x + 1
    return x


def either(x):
    return 1 if x else 2


def both(x):
    return x and 5


def caught(x):
    try:
        return int(x)
    except ValueError:
        return 3


def raises(x):
    if x is None:
        raise ValueError(f"{x!r} is no number")
    if x == "no":
        raise ValueError
    return x


def loops(x):
    with memoryview(b"ab") as view:
        return [v + 1 for v in view], {k: k + "b" for k in "ab"}, sum(v + 1 for v in view)


LINES = "\n".join(f"        v{i} = {i * 1000}" for i in range(400))
exec(f"def far(x):\n    if x:\n{LINES}\n    return 1\n")  # jumps so far need an EXTENDED_ARG


@pytest.mark.parametrize("function", [statement, either, both, globals()["far"]])
def test_a_branch_is_open_until_both_ways_were_seen(function):
    branches = Branches()
    with branches:
        function(1)
    assert f"of {function.__name__} has a branch" in branches.open()
    with branches:
        function(0)
    assert branches.open() == ""


def test_what_decides_nothing():
    outer = sys.gettrace()
    branches = Branches()
    with branches:
        raises(1)
        loops(1)
    assert branches.open() == ""
    with branches:
        caught("1")
    assert "of caught has a branch" in branches.open()
    assert sys.gettrace() is outer
