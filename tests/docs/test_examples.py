"""The Python examples of README and pages run, from top to bottom, and print what they show."""

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

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
PAGES = {  # with the least number of blocks, so that a changed fence is noticed
    "README.md": 2,
    "docs/guide/freezing.md": 3,
    "docs/guide/fusing.md": 4,
    "docs/guide/many-models.md": 5,
    "docs/reference/lm.md": 1,
    "docs/tutorial.md": 4,
}


def run(code: str, names: dict[str, object]) -> str:
    """What ``code`` prints. Its source stays at hand, as in a notebook: `mlpkern.fuse` reads it."""
    name = f"<example {len(linecache.cache)}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), names)
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES)
def test_examples(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"torch": torch, "nn": nn, "F": F, "mlpkern": mlpkern}
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) >= PAGES[page]
    for block in blocks:
        code, *shown = re.split(r"^>>> (?=print\()", block, flags=re.M)
        run(re.sub(r"^>>> ", "", code, flags=re.M), names)
        for part in shown:
            call, _, expected = part.partition("\n")
            assert run(call, names) == expected, call
