"""The Python examples of README and pages run as they stand, and print what they show.

The blocks of a page run from top to bottom; a name that no block has made is an error.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import re
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = {
    str(page.relative_to(ROOT)): blocks
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
    if (blocks := FENCE.findall(page.read_text(encoding="utf-8")))
}


def run(code: str, names: dict[str, object]) -> str:
    """What ``code`` prints. Its source stays at hand, as in a notebook: `mlpkern.fuse` reads it."""
    name = f"<example {len(linecache.cache)}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), names)
    return printed.getvalue()


def test_most_pages_have_examples():
    assert len(PAGES) >= 12
    assert sum(map(len, PAGES.values())) >= 35


@pytest.mark.parametrize("page", PAGES)
def test_examples(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in PAGES[page]:
        if "cuda" in block and not torch.cuda.is_available():
            compile(block, page, "exec")
            continue
        code, *shown = re.split(r"^>>> (?=print\()", block, flags=re.M)
        run(re.sub(r"^>>> ", "", code, flags=re.M), names)
        for part in shown:
            call, _, expected = part.partition("\n")
            assert run(call, names) == expected, call
