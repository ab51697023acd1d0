"""Every public name has an entry in the reference, and every entry names something public.

After `make docs` the inventory of the built site is compared too.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

import mlpkern
from mlpkern import lm

ROOT = Path(__file__).resolve().parents[2]
MODULES = [mlpkern, mlpkern.functional, mlpkern.nn, mlpkern.autograd, lm]
SUBMODULES = {"autograd", "functional", "lm", "nn"}


def public() -> set[str]:
    """Full names; a function of mlpkern.functional is also a name of mlpkern, with one entry."""
    names = {f"{module.__name__}.{name}" for module in MODULES for name in module.__all__}
    names -= {f"mlpkern.{name}" for name in SUBMODULES} | {"mlpkern.__version__"}
    names -= {f"mlpkern.{name}" for name in mlpkern.functional.__all__}
    return names | {"mlpkern.reference.philox.dropout_mask"}


def entries() -> list[str]:
    found = []
    for page in sorted((ROOT / "docs" / "reference").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for name, options in re.findall(r"^::: (\S+)\n((?: +.*\n)*)", text, re.M):
            members = re.search(r"members: \[([\w, ]+)\]\n", options)
            inside = members and not name[name.rindex(".") + 1].isupper()
            found += [f"{name}.{m}" for m in members[1].split(", ")] if inside else [name]
    return found


def test_every_public_name_has_one_entry():
    assert sorted(entries()) == sorted(public())


def test_every_public_name_is_in_the_inventory_of_the_site():
    inventory = ROOT / "build" / "site" / "objects.inv"
    if not inventory.is_file():
        pytest.skip("the site is not built: make docs")
    lines = zlib.decompress(inventory.read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    assert public() <= {line.split()[0] for line in lines}


def test_the_site_loads_nothing_from_elsewhere():
    pages = sorted((ROOT / "build" / "site").rglob("*.html"))
    if not pages:
        pytest.skip("the site is not built: make docs")
    for page in pages:
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert not [tag for tag in tags if re.search(r"(?:src|href)=.?(?:https?:)?//", tag)], page
