"""Examples in docstrings give what they show, and public docstrings render in the reference."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlpkern
from mlpkern import lm

pytestmark = pytest.mark.usefixtures("one_thread")
PACKAGE = Path(mlpkern.__file__).parent
EXAMPLES = sorted(
    ".".join(("mlpkern", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name):
    if "plots" in name:
        pytest.importorskip("matplotlib")
    module = importlib.import_module(name)
    done = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert done.attempted > 0
    assert done.failed == 0


def public_docstrings() -> Iterator[tuple[str, str]]:
    """Of every public class and function, and of the methods that it does not inherit."""
    for module in (mlpkern, mlpkern.functional, mlpkern.nn, mlpkern.autograd, lm, lm.plots):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing) or not callable(thing):
                continue
            yield f"{module.__name__}.{name}", thing.__doc__ or ""
            for method, value in vars(thing).items() if inspect.isclass(thing) else ():
                value = getattr(value, "fget", None) or getattr(value, "__func__", value)
                above = [*thing.__mro__[1:], *[lm.Engine] * (thing in lm.ENGINES.values())]
                inherited = any(hasattr(base, method) for base in above)
                if inspect.isfunction(value) and method[0] != "_" and not inherited:
                    yield f"{module.__name__}.{name}.{method}", value.__doc__ or ""


BAD = {
    "no docstring": re.compile(r"\A\Z"),
    "a table in columns; use a section Attributes": re.compile(r"^\w+ {2,}\S", re.M),
    "a block after `::`; a colon is enough": re.compile(r"::$", re.M),
    "examples outside of a section Examples": re.compile(r"^>>>", re.M),
    "two arguments in one entry": re.compile(r"^    \w+, \w+: ", re.M),
    "two errors in one entry": re.compile(r"^    \w+Error: [^\n]*\. \w+Error: ", re.M),
    "a section that is called otherwise": re.compile(r"^Raises,.*:$", re.M),
}


def test_public_docstrings_render():
    bad = [
        f"{name}: {why}"
        for name, doc in public_docstrings()
        for why, pattern in BAD.items()
        if pattern.search(inspect.cleandoc(doc))
    ]
    assert bad == []
