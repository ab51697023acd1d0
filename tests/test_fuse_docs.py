"""The examples of docs/fusing.md print what the page shows."""

from __future__ import annotations

import contextlib
import io
import linecache
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlpkern

PAGE = Path(__file__).parent.parent / "docs" / "fusing.md"


def run(code: str, names: dict) -> None:
    """Run ``code`` as a notebook does: its source stays at hand."""
    name = f"<cell {len(linecache.cache)}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    exec(compile(code, name, "exec"), names)


@pytest.mark.skipif(not PAGE.exists(), reason="an installed package has no docs")
def test_the_examples_print_what_the_page_shows():
    names = {"torch": torch, "nn": nn, "F": F, "mlpkern": mlpkern}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 3
    for block in blocks:
        code, _, shown = block.partition(">>> print(")
        call, _, expected = shown.partition("\n")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            run(code.replace(">>> ", "") + f"print({call}", names)
        assert printed.getvalue() == expected
